// Owns the daemon's token, kept for this tab alone.

const KEY = "uni-token";

/** The token, or empty. */
export function keptToken(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Keeps it until the tab is closed. */
export function keepToken(token: string): void {
  sessionStorage.setItem(KEY, token);
}

/** It was no good. */
export function forgetToken(): void {
  sessionStorage.removeItem(KEY);
}
