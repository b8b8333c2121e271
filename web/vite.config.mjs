// Owns how the page is bundled: two html entries under /ui, assets under /ui/assets.
// Never inlines anything: the page is served with a policy that allows files from its own origin only.
import { defineConfig } from "vite";

export default defineConfig({
  base: "/ui/",
  publicDir: false,
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: { index: "index.html", vm: "vm.html" } },
  },
});
