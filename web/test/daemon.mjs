// Owns a real `unid` for browser tests: its state directory, its log, `uni` against it, and its end with all its VMs.
// UNI_BIN_DIR and UNI_GUESTS_DIR say where programs and guests are, as for the black-box tests.
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { until } from "./chromium.mjs";

const TARGET = new URL("../../target/", import.meta.url).pathname;
const BIN = process.env.UNI_BIN_DIR ?? join(TARGET, "release");
const GUESTS = process.env.UNI_GUESTS_DIR ?? join(TARGET, "guests");
const START_MS = 30_000;
const ADDRESSES = ["--line-addr", "--syslog-addr", "--api-addr", "--ui-addr"].flatMap((flag) => [flag, "127.0.0.1:0"]);

/** Starts one on free ports, with `flags` made from its new directory. */
export async function start(flags = () => []) {
  const dir = mkdtempSync(join(tmpdir(), "uni-browser-"));
  const socket = join(dir, "unid.sock");
  const own = ["--state-dir", join(dir, "s"), "--socket", socket, ...ADDRESSES, ...flags(dir)];
  const child = spawn(join(BIN, "unid"), own, { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (log += text));
  const failed = new Promise((_, reject) => {
    child.on("error", (error) => reject(new Error(`start unid in ${BIN}: ${error.message}; cargo xtask build makes it`)));
    child.on("exit", (status) => reject(new Error(`unid ended with ${status}: ${log}`)));
  });
  // it is looked at where it is waited for
  failed.catch(() => {});
  await Promise.race([until("unid to listen", START_MS, async () => log.includes("listening control ")), failed]);
  const address = (what) => log.match(new RegExp(`^listening ${what} (.*)$`, "m"))?.[1];
  const uni = async (...args) => (await promisify(execFile)(join(BIN, "uni"), ["--socket", socket, ...args])).stdout;
  return {
    base: `http://${address("ui")}`,
    lineAddress: address("line"),
    log: () => log,
    uni,
    json: async (...args) => JSON.parse(await uni("--output", "json", ...args)),
    runLeaky: (name, ...args) => uni("run", join(GUESTS, "leaky.elf"), "--name", name, "--memory", "128M", "--", "--interval=1", ...args),
    run: (name, ...args) => uni("run", join(GUESTS, "hello.elf"), "--name", name, "--memory", "32M", "--", "--interval=1", ...args),
    end: async () => {
      child.removeAllListeners("exit");
      const ended = new Promise((resolve) => child.on("exit", resolve));
      await uni("daemon", "stop", "--vms", "--time", "0").catch(() => child.kill("SIGKILL"));
      await ended;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
