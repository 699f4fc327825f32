// The token is in the address that the program prints. It is kept for this origin (which includes the port), so that links open
// in other tabs, and taken out of the address, so that it is not copied with it.
const KEY = "token";

export const takeToken = (): string => {
  const found = /^#token=([A-Za-z0-9_-]+)(.*)$/.exec(location.hash);
  if (found?.[1]) {
    localStorage.setItem(KEY, found[1]);
    history.replaceState(null, "", `#${found[2] || "/overview"}`);
  }
  return localStorage.getItem(KEY) ?? "";
};
