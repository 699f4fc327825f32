// The view that the address selects: `#/why?from=…&to=…`. Each view has an address of its own.

export interface Route {
  page: string;
  parameters: URLSearchParams;
}

const read = (): Route => {
  const text = location.hash.replace(/^#\/?/, "");
  const at = text.indexOf("?");
  return { page: (at < 0 ? text : text.slice(0, at)) || "overview", parameters: new URLSearchParams(at < 0 ? "" : text.slice(at + 1)) };
};

class Router {
  now = $state.raw<Route>(read());

  constructor() {
    addEventListener("hashchange", () => {
      this.now = read();
    });
  }

  // Changes parameters of the view, without a step in the browser's history.
  adjust(parameters: Record<string, string>): void {
    const all = new URLSearchParams(this.now.parameters);
    for (const [name, value] of Object.entries(parameters)) {
      if (value) all.set(name, value);
      else all.delete(name);
    }
    history.replaceState(null, "", href(this.now.page, Object.fromEntries(all)));
    this.now = read();
  }
}

export const href = (page: string, parameters: Record<string, string> = {}): string => {
  const query = new URLSearchParams(parameters).toString();
  return `#/${page}${query ? `?${query}` : ""}`;
};

export const go = (page: string, parameters: Record<string, string> = {}): void => {
  location.hash = href(page, parameters);
};

export const router = new Router();
