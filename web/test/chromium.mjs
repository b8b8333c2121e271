// Owns how the tests start a browser: the installed Chromium, headless, on a profile of its own.
// CHROMIUM names another binary.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Opens a browser context; `close` ends it and removes the profile. */
export async function open(options = {}) {
  const profile = mkdtempSync(join(tmpdir(), "uni-page-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
    viewport: { width: 1280, height: 900 },
    ...options,
  });
  return {
    context,
    close: async () => {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** Collects what a page must never do: errors, console errors, breaches of the policy, requests elsewhere. */
export function watch(page, base, faults) {
  page.on("pageerror", (error) => faults.push(`page error: ${error.message}`));
  page.on("console", (message) => {
    const text = message.text();
    if (message.type() === "error" || /Content.Security.Policy/i.test(text)) faults.push(`console: ${text} (${message.location().url})`);
  });
  page.on("dialog", (dialog) => {
    faults.push(`a dialog opened: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(base)) faults.push(`request to another origin: ${request.url()}`);
  });
}

/** Calls `probe` until it answers something true, or fails with `what` after `limitMs`. */
export async function until(what, limitMs, probe) {
  const end = Date.now() + limitMs;
  for (;;) {
    const result = await probe();
    if (result) return result;
    if (Date.now() > end) throw new Error(`waited ${limitMs / 1000} s in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}
