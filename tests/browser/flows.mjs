// The page Flows of `palisade ui`: what agents saw.
import { check } from "./checks.mjs";

const end = (namespace, kind, name, address) => ({ address, pod: { kind: "Pod", namespace, name: `${name}-0` }, workload: { kind, name } });
const record = (id, more) => ({ id, time: `2026-11-28T10:00:${String(id).padStart(2, "0")}Z`, node: "node-1", verdict: "dropped", direction: "ingress", protocol: "TCP", port: 8080, generation: 1, count: 3, reason: ["isolated by NetworkPolicy shop/backend-from-frontend, and no rule matches"], ...more });

// Lines of `palisade flows -o json` about pods of examples/shop.
export const recorded = () => {
  const [staging, backend] = [end("staging", "Deployment", "frontend", "10.0.0.4"), end("shop", "Deployment", "backend", "10.0.0.3")];
  return [
    record(1, { source: staging, destination: backend }),
    record(2, { source: { address: "203.0.113.7" }, destination: backend, verdict: "audited" }),
    record(3, { source: end("<img src=x onerror=window.stolen=1>", "Deployment", "odd", "10.0.9.9"), destination: backend, port: 9090, reason: ["<script>window.stolen=1</script>"] }),
  ].map((one) => `${JSON.stringify(one)}\n`).join("") + "no record\n";
};

export const shows = async (page, place) => {
  const rows = page.locator("[aria-labelledby=flows] tbody tr");
  await rows.first().waitFor();
  check(`${place}: the latest is first`, (await rows.first().textContent()).includes("<img src=x onerror=window.stolen=1>"), await rows.first().textContent());
  check(`${place}: all are shown`, (await rows.count()) === 3);
  check(`${place}: what is no record is said`, (await page.textContent("main")).includes("1 line is no record"));
  await page.selectOption("#verdict", "audited");
  await page.waitForFunction(() => document.querySelectorAll("[aria-labelledby=flows] tbody tr").length === 1);
  check(`${place}: audited ones are found`, (await rows.first().textContent()).includes("203.0.113.7"));
  await page.selectOption("#verdict", "");
  await page.fill("#port", "8080");
  await page.waitForFunction(() => document.querySelectorAll("[aria-labelledby=flows] tbody tr").length === 2);
  check(`${place}: the filter is in the address`, page.url().includes("port=8080"), page.url());
  const denied = rows.filter({ hasText: "staging" });
  await denied.getByRole("button", { name: "What would allow it?" }).click();
  await denied.locator(".part details").first().waitFor();
  check(`${place}: an edit that allows it`, (await denied.locator(".part").textContent()).includes("Each of these edits allows it"), await denied.locator(".part").textContent());
  await denied.getByRole("link", { name: "Why" }).click();
  await page.locator("#why").waitFor();
  check(`${place}: a flow leads to what decides`, page.url().includes("from=staging%2Fdeployment%2Ffrontend"), page.url());
  await page.goBack();
  await rows.first().waitFor();
  // An address outside.
  const outside = rows.filter({ hasText: "203.0.113.7" });
  await outside.getByRole("link", { name: "Why" }).click();
  await page.locator("#why section").first().waitFor();
  check(`${place}: an address outside leads to what decides`, page.url().includes("from=203.0.113.7"), page.url());
  // No policy applies to the side of an address outside, so its list is empty.
  await page.locator(".walk li").first().waitFor();
  check(`${place}: edits that allow it are shown`, (await page.textContent("main")).includes("Edits that allow it"), await page.textContent("main"));
  await page.goBack();
  await rows.first().waitFor();
};

// The Overview of the same pages: what was dropped in the last hour of the recorded flows. A line could not be read, so there may be more.
export const counted = async (page, place) => {
  const card = page.locator(".card", { has: page.getByRole("heading", { name: "shop", exact: true }) });
  await card.getByText("Packets in the last hour").waitFor();
  check(`${place}: drops are on the card of their namespace`, /at least 6 dropped, at least 3 audited/.test(await card.textContent()), await card.textContent());
  const other = page.locator(".card", { has: page.getByRole("heading", { name: "monitoring", exact: true }) });
  check(`${place}: a namespace without drops`, (await other.textContent()).includes("no drop known"), await other.textContent());
};

// A filter that can't be read. The browser logs the answer as an error.
export const refuses = async (page) => {
  await page.getByRole("alert").waitFor();
  check("flows: a filter that is none is an error", (await page.getByRole("alert").textContent()).includes("is not a port"));
  await page.fill("#port", "9090");
  await page.locator("[aria-labelledby=flows] tbody tr").first().waitFor();
  check("flows: the error is gone with the next filter", (await page.getByRole("alert").count()) === 0);
};
