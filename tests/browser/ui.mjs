// Looks at the pages of `palisade ui` in Chromium.
//
//     node ui.mjs FOLDER PALISADE ROOT
//
// FOLDER gets the screenshots. Each check that fails is printed; the exit code is 1 then.
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { chromium } from "playwright-core";
import { accessible, check, finish } from "./checks.mjs";
import { large, odd } from "./clusters.mjs";
import * as flows from "./flows.mjs";
import * as attempt from "./try.mjs";

const [folder, palisade, root] = process.argv.slice(2).map((name) => path.resolve(name));
fs.mkdirSync(path.join(folder, "odd"), { recursive: true });
const write = (name, text) => {
  fs.writeFileSync(path.join(folder, name), text);
  return path.join(folder, name);
};

// Starts the server. Returns the address that it prints, and what ends it.
const serve = (...words) =>
  new Promise((resolve, reject) => {
    const child = spawn(palisade, ["ui", ...words], { cwd: root, env: { PATH: process.env.PATH, KUBECONFIG: "/nonexistent" }, stdio: ["ignore", "pipe", "pipe"] });
    let [out, err] = ["", ""];
    child.stderr.on("data", (text) => { err += text; });
    child.stdout.on("data", (text) => {
      out += text;
      const found = /^(http:\/\/127\.0\.0\.1:\d+\/)#token=(\S+)\n/.exec(out);
      if (found) resolve({ url: found[1], token: found[2], stop: () => child.kill() });
    });
    child.on("exit", (code) => reject(new Error(`palisade ui ${words.join(" ")}: exit code ${code}: ${err}`)));
  });

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const open = async ({ url, token }, { width = 1280, dark = false, hash = "" } = {}) => {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: dark ? "dark" : "light" });
  const page = await context.newPage();
  const said = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && said.push(message.text()));
  page.on("pageerror", (error) => said.push(String(error)));
  page.on("request", (request) => request.url().startsWith(url) || request.url().startsWith("blob:") || said.push(`request: ${request.url()}`));
  const began = Date.now();
  await page.goto(`${url}#token=${token}${hash}`);
  await page.locator("header p").nth(1).waitFor({ timeout: 60_000 });
  return { page, said, took: Date.now() - began, close: () => context.close() };
};

// Looks at a view in both widths and colors.
const inspect = async (server, name, hash, content) => {
  for (const width of [1280, 390]) {
    for (const dark of [false, true]) {
      const place = `${name}, ${width} px, ${dark ? "dark" : "light"}`;
      const { page, said, took, close } = await open(server, { width, dark, hash });
      try {
        await content(page, place, took);
      } catch (error) {
        check(`${place}: can be used`, false, String(error).slice(0, 600));
      }
      await accessible(place, page);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      check(`${place}: the page is not wider than the window`, wide <= 0, `${wide} px`);
      check(`${place}: no error, no request to elsewhere`, said.length === 0, said.join("; "));
      check(`${place}: nothing from a manifest ran`, (await page.evaluate("window.stolen")) === undefined);
      check(`${place}: the address has no token`, !page.url().includes("token"), page.url());
      await page.screenshot({ path: path.join(folder, `ui-${name}-${width}-${dark ? "dark" : "light"}.png`), fullPage: true });
      await close();
    }
  }
};
const cell = (page, from, to) => page.locator(`#grid td[aria-label^=${JSON.stringify(`${from} → ${to}:`)}]`);
// Scrolls until a cell is in view: only these exist.
const shown = async (page, from, to) => {
  const found = cell(page, from, to);
  for (let left = 0; left < 2_000 && (await found.count()) === 0; left += 150) {
    await page.evaluate((x) => document.getElementById("grid").scrollTo(x, 0), left);
    await page.waitForTimeout(100);
  }
  return found;
};

const shop = await serve("-f", "examples/shop", "--flows", write("flows.json", flows.recorded()));
await inspect(shop, "overview", "", async (page, place) => {
  check(`${place}: there is a card for each namespace`, (await page.locator(".card").count()) === 4);
  check(`${place}: unprotected ones are counted`, (await page.textContent("main")).includes("4 of 5 workloads are unprotected"));
  const rows = await page.locator("[aria-labelledby=workloads] tbody tr").allTextContents();
  check(`${place}: unprotected workloads come first`, rows.length === 5 && rows[4].includes("shop/deployment/backend") && rows[4].includes("isolated"), rows.join(" / "));
  await page.fill("#q", "staging");
  await page.waitForFunction(() => document.querySelectorAll(".card").length === 1);
  check(`${place}: the search is in the address`, page.url().endsWith("#/overview?q=staging"), page.url());
  await page.fill("#q", "");
});
await inspect(shop, "matrix", "/matrix", async (page, place) => {
  check(`${place}: the table is a grid`, (await page.getByRole("grid", { name: "Allowed connections" }).count()) === 1);
  const denied = await shown(page, "staging/deployment/frontend", "shop/deployment/backend");
  check(`${place}: a denied pair`, (await denied.textContent()) === "–");
  const allowed = await shown(page, "shop/deployment/frontend", "shop/deployment/backend");
  check(`${place}: a cell has its ports`, (await allowed.textContent()) === "all");
  await allowed.hover();
  check(`${place}: row and column are marked`, (await page.locator("#grid th.hot").count()) === 2);
  await allowed.focus();
  await page.keyboard.press("ArrowDown");
  await page.waitForFunction(() => document.activeElement.getAttribute("aria-label")?.startsWith("staging →"));
  await page.keyboard.press("ArrowUp");
  await page.waitForFunction(() => document.activeElement.getAttribute("aria-label")?.startsWith("shop/deployment/frontend → shop/deployment/backend"));
  await page.keyboard.press("Enter");
  await page.locator("#why").waitFor();
  check(`${place}: Enter leads to what decides`, page.url().includes("#/why?from=shop%2Fdeployment%2Ffrontend&to=shop%2Fdeployment%2Fbackend"), page.url());
  await page.goBack();
  await page.getByRole("button", { name: "Fold all", exact: true }).click();
  await page.waitForFunction(() => document.querySelectorAll("#grid tbody tr").length < 6);
  await page.locator("#grid td.some, #grid td.all, #grid td.net").first().click();
  check(`${place}: a cell of namespaces lists its pairs`, (await page.locator("#pairs li a").count()) > 0);
  await page.fill("#q", "backend");
  await page.waitForFunction(() => document.querySelectorAll("#grid tbody tr").length === 2);
  await page.fill("#q", "");
});
await inspect(shop, "map", "/map", async (page, place) => {
  const names = await page.locator(".map .place text").allTextContents();
  check(`${place}: namespaces and what is outside are places`, ["data (1)", "shop (2)", "the internet", "other addresses"].every((name) => names.includes(name)), names.join());
  await page.getByRole("link", { name: "shop (2): unfold" }).click();
  await page.getByRole("link", { name: "shop/deployment/backend: show its neighbors" }).waitFor();
  check(`${place}: an arrow has its ports`, (await page.getByRole("link", { name: "shop/deployment/backend → other addresses: TCP 80" }).count()) > 0);
  await page.getByRole("link", { name: "shop/deployment/backend: show its neighbors" }).click();
  await page.getByRole("heading", { name: "Neighbors of shop/deployment/backend" }).waitFor();
  const shown = await page.locator(".map .place text").allTextContents();
  check(`${place}: only neighbors are shown`, shown.length === 3 && !shown.includes("data (1)"), shown.join());
  await page.locator("summary").getByText("As a list").click();
  await page.locator("details li a", { hasText: "shop/deployment/frontend → shop/deployment/backend: all" }).click();
  await page.locator("#why").waitFor();
  check(`${place}: an arrow leads to what decides`, page.url().includes("#/why?from=shop%2Fdeployment%2Ffrontend"), page.url());
  await page.goBack();
  await page.locator(".map svg").waitFor();
});
await inspect(shop, "policies", "/policies", async (page, place) => {
  check(`${place}: all policies are listed`, (await page.locator("[aria-labelledby=policies] tbody tr").count()) === 2);
  await page.getByRole("link", { name: "NetworkPolicy shop/backend-egress" }).click();
  await page.locator(".picture img").waitFor();
  check(`${place}: the picture is drawn`, await page.locator(".picture img").evaluate((image) => image.decode().then(() => image.naturalWidth > 100)));
  check(`${place}: the sentence`, (await page.textContent("main")).includes("Lets pods app=backend in namespace shop reach 192.168.1.0/24 on TCP 80"));
});
await inspect(shop, "why-denied", "/why?from=staging%2Fdeployment%2Ffrontend&to=shop%2Fdeployment%2Fbackend", async (page, place) => {
  const text = await page.locator("#why").textContent();
  check(`${place}: the policy that isolates is named`, text.includes("isolated by NetworkPolicy shop/backend-from-frontend"), text);
  check(`${place}: the deciding lines are marked`, (await page.locator("#why pre mark").count()) > 0);
  await page.locator(".walk li").first().waitFor();
  const main = await page.textContent("main");
  check(`${place}: the mistake is named`, main.includes("podSelector without namespaceSelector selects pods of namespace shop only"));
  check(`${place}: the rule that does not match is shown`, main.includes("pods app=frontend in namespace shop"));
});
await inspect(shop, "why-allowed", "/why?from=shop%2Fdeployment%2Ffrontend&to=shop%2Fdeployment%2Fbackend", async (page, place) => {
  check(`${place}: the rule is named`, (await page.locator("#why").textContent()).includes("NetworkPolicy shop/backend-from-frontend, ingress[0]"));
  await page.locator(".walk .hit").first().waitFor();
  check(`${place}: an edit that denies it`, (await page.textContent("main")).includes("Edits that deny it"));
});
await inspect(shop, "why-nobody", "/why?from=nobody&to=shop%2Fdeployment%2Fbackend", async (page, place) => {
  check(`${place}: says that there is none`, (await page.textContent("main")).includes("There is no nobody"));
});
await inspect(shop, "try-new", "/try", attempt.adds);
await inspect(shop, "try-edit", "/try?policy=NetworkPolicy+shop%2Fbackend-from-frontend", attempt.edits);
await inspect(shop, "flows", "/flows", flows.shows);
await inspect(shop, "drops", "/overview", flows.counted);
{
  const { page, close } = await open(shop, { hash: "/flows?port=nothing" });
  await flows.refuses(page);
  await close();
}
{
  const { page, close } = await open({ url: shop.url, token: "x" }).catch((error) => ({ error }));
  check("with a wrong token, there is nothing", page === undefined);
  await close?.();
  const context = await browser.newContext();
  const wrong = await context.newPage();
  await wrong.goto(`${shop.url}#token=wrong`);
  await wrong.getByRole("alert").waitFor();
  check("with a wrong token, the page says what to open", (await wrong.textContent("main")).includes("open the address that `palisade ui` printed"));
  // A page of another origin.
  const other = await context.newPage();
  await other.goto(`${shop.url.replace("127.0.0.1", "localhost")}#token=${shop.token}`);
  const answer = await other.evaluate(([url, token]) => fetch(`${url}api/v1/report`, { headers: { authorization: `Bearer ${token}` } }).then(() => "answered", () => "refused"), [shop.url, shop.token]);
  check("a page of another origin gets no answer", answer === "refused", answer);
  await context.close();
}
{
  const context = await browser.newContext();
  const page = await context.newPage();
  const end = { kind: "external", namespace: null, file: null, line: null, pods: 0, families: ["IPv4"], internet: false, several: false };
  const ends = Array.from({ length: 5_001 }, (_, at) => ({ ...end, id: `${at}` }));
  await page.route("**/api/v1/report", (route) => route.fulfill({ json: { ends } }));
  await page.goto(`${shop.url}#token=${shop.token}`);
  await page.getByRole("alert").waitFor();
  check("too many ends are not shown, and the page says so", (await page.getByRole("alert").textContent()).includes("5,001 workloads, nodes and ranges of addresses do not fit here"));
  await context.close();
}
shop.stop();

// Edits.
const edited = write("edited.yaml", fs.readFileSync(path.join(root, "examples/shop/workloads.yaml"), "utf8"));
const following = await serve("-f", edited);
{
  const { page, said, close } = await open(following, { hash: "/overview" });
  check("edits: without policies, all is open", (await page.textContent("main")).includes("5 of 5 workloads are unprotected"));
  const good = fs.readFileSync(edited, "utf8");
  const policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\nspec: {podSelector: {}}\n";
  fs.writeFileSync(edited, good + policy);
  await page.getByText("3 of 5 workloads are unprotected").waitFor({ timeout: 20_000 });
  fs.writeFileSync(edited, `${good}${policy}---\nkind: [\n`);
  await page.getByRole("alert").waitFor({ timeout: 20_000 });
  const alert = await page.getByRole("alert").textContent();
  check("edits: a broken file is named with its line", /edited\.yaml:\d+/.test(alert), alert);
  check("edits: what was read last stays", (await page.textContent("main")).includes("3 of 5 workloads are unprotected"));
  await page.screenshot({ path: path.join(folder, "ui-broken.png") });
  fs.writeFileSync(edited, good);
  await page.getByText("5 of 5 workloads are unprotected").waitFor({ timeout: 20_000 });
  check("edits: a corrected file is shown", (await page.getByRole("alert").count()) === 0);
  check("edits: no error", said.length === 0, said.join("; "));
  following.stop();
  await page.getByText("palisade ui does not answer").waitFor({ timeout: 20_000 });
  check("edits: what was read last stays when the server ends", (await page.textContent("main")).includes("5 of 5 workloads are unprotected"));
  await close();
}

write("odd/<script>window.stolen=1<script>'.yaml", odd);
const strange = await serve("-f", path.join(folder, "odd"));
for (const [name, hash] of [["odd-overview", ""], ["odd-matrix", "/matrix"], ["odd-map", "/map?open=shop"], ["odd-policy", "/policies?name=NetworkPolicy+shop%2Fp"]]) {
  await inspect(strange, name, hash, async (page, place) => {
    check(`${place}: the name is shown as text`, (await page.textContent("body")).includes("<script>window.stolen=1</script>"));
    if (hash !== "/matrix") return;
    await page.locator("#grid td.some, #grid td.all").first().click();
    await page.locator("#why, #pairs").first().waitFor();
  });
}
await inspect(strange, "odd-try", "/try?policy=NetworkPolicy+shop%2Fp", attempt.hostile);
strange.stop();

const large_ = await serve("-f", write("large-ui.yaml", large()), "--pod-cidr", "10.244.0.0/16");
await inspect(large_, "large-overview", "", async (page, place, took) => {
  console.log(`${place}: shown after ${took} ms`);
  check(`${place}: all namespaces have cards`, (await page.locator(".card").count()) === 50);
});
await inspect(large_, "large-matrix", "/matrix", async (page, place, took) => {
  console.log(`${place}: shown after ${took} ms`);
  check(`${place}: namespaces are folded`, (await page.locator("#grid tbody tr").count()) <= 60);
  await page.getByRole("button", { name: "Unfold all" }).click();
  await page.waitForFunction(() => Number(document.querySelector("#grid table").getAttribute("aria-rowcount")) > 1_000);
  // Scrolling, and what a frame takes.
  const frames = await page.evaluate(async () => {
    const grid = document.getElementById("grid");
    const times = [];
    for (let at = 0; at < 40; at++) {
      const began = performance.now();
      grid.scrollTo(at * 1_000, at * 400);
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      times.push(performance.now() - began);
    }
    return times.sort((a, b) => a - b);
  });
  console.log(`${place}: a step of scrolling takes ${frames[20].toFixed(0)} ms (median), ${frames[39].toFixed(0)} ms (longest)`);
  const drawn = await page.locator("#grid td").count();
  check(`${place}: only cells in view are drawn`, drawn > 50 && drawn < 2_500, `${drawn} cells`);
  const hover = await page.evaluate(async () => {
    const cells = [...document.querySelectorAll("#grid td")].slice(0, 50);
    const times = [];
    for (const one of cells) {
      const began = performance.now();
      one.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
      await Promise.resolve();
      document.querySelector("#grid").getBoundingClientRect();
      times.push(performance.now() - began);
    }
    return times.sort((a, b) => a - b)[25];
  });
  console.log(`${place}: a hover takes ${hover.toFixed(1)} ms (median)`);
  check(`${place}: the cross-hair follows`, (await page.locator("#grid th.hot").count()) === 2);
});
await inspect(large_, "large-map", "/map", async (page, place, took) => {
  console.log(`${place}: shown after ${took} ms`);
  check(`${place}: too many arrows are not drawn`, (await page.textContent("main")).includes("could not be told apart"));
  check(`${place}: all namespaces are there`, (await page.locator(".map .place").count()) >= 50);
});
await inspect(large_, "large-focus", "/map?focus=team-01%2Fdeployment%2Fapp-1", async (page, place) => {
  check(`${place}: neighbors are drawn`, (await page.locator(".map .edge").count()) > 2 && (await page.locator(".map .edge").count()) <= 120);
});
await inspect(large_, "large-why", "/why?from=team-02%2Fdeployment%2Fapp-0&to=team-01%2Fdeployment%2Fapp-1", async (page, place) => {
  // The reasons are shown at once. The evaluation of all policies may take longer than the server allows.
  await page.locator(".walk").first().or(page.getByText("the answer takes too long")).first().waitFor({ timeout: 90_000 });
  console.log(`${place}: all policies: ${(await page.locator(".walk").count()) > 0 ? "shown" : "the answer takes too long"}`);
  check(`${place}: the reasons are shown`, (await page.locator("#why p").count()) > 0);
});
await inspect(large_, "large-try", "/try", attempt.isQuick);
large_.stop();
await browser.close();
finish();
