// The page Try of `palisade ui`: what an edited policy opens and closes.
import fs from "node:fs";
import { check } from "./checks.mjs";

const editor = (page) => page.locator(".editor .cm-content");
const replace = async (page, text) => {
  await editor(page).click();
  await page.keyboard.press("Control+a");
  await page.keyboard.insertText(text);
};
const policy = (spec) => `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: tried, namespace: shop}\nspec: ${spec}\n`;
// Waits for an answer about the text as it is now.
const settled = (page) => page.waitForFunction(() => document.querySelector("#consequences")?.getAttribute("aria-busy") === "false");
const saved = async (page, name) => {
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name }).click()]);
  return { name: download.suggestedFilename(), text: fs.readFileSync(await download.path(), "utf8") };
};

// A new policy, and what the matrix and the map mark.
export const adds = async (page, place) => {
  await page.getByText("selects nothing").or(page.locator("#consequences strong")).first().waitFor();
  await replace(page, policy("{podSelector: {matchLabels: {app: frontend}}, policyTypes: [Ingress, Egress]}"));
  const consequences = page.locator("#consequences");
  await consequences.getByText("because NetworkPolicy shop/tried added").waitFor();
  const rows = await consequences.locator(".rows li").allTextContents();
  check(`${place}: what closes is listed`, rows.some((row) => row.includes("closes") && row.includes("shop/deployment/frontend → data/statefulset/database")), rows.join(" / "));
  const yaml = await saved(page, "Download YAML");
  check(`${place}: YAML is downloaded`, yaml.name === "tried.yaml" && yaml.text === policy("{podSelector: {matchLabels: {app: frontend}}, policyTypes: [Ingress, Egress]}"), JSON.stringify(yaml));
  // Broken YAML.
  await replace(page, `${policy("{podSelector: {}}")}  broken: [\n`);
  await page.locator("#found .bad").first().waitFor();
  check(`${place}: the error has its line`, /^line [456]: /.test(await page.locator("#found .bad").first().textContent()), await page.locator("#found").textContent());
  check(`${place}: the last good state stays`, (await consequences.textContent()).includes("because NetworkPolicy shop/tried added"));
  check(`${place}: a broken text is not downloaded`, await page.getByRole("button", { name: "Download YAML" }).isDisabled());
  // A likely mistake.
  await replace(page, policy("{podSelector: {matchLabels: {app: fronted}}}"));
  await page.locator("#found").getByText("PAL").first().waitFor();
  check(`${place}: a likely mistake is shown at its line`, (await page.locator("#found").textContent()).includes("line 4"), await page.locator("#found").textContent());
  await replace(page, policy("{podSelector: {matchLabels: {app: frontend}}, policyTypes: [Ingress, Egress]}"));
  await consequences.getByText("because NetworkPolicy shop/tried added").waitFor();
  await settled(page);
  await page.locator("#consequences").getByRole("link", { name: "matrix" }).click();
  await page.locator("#grid td.closes").first().waitFor();
  const label = await page.locator("#grid td.closes").first().getAttribute("aria-label");
  check(`${place}: the matrix marks it, and says so`, /; Try closes \d+/.test(label), label);
  await page.getByRole("link", { name: "Map", exact: true }).click();
  await page.locator(".map .edge.closes").first().waitFor({ state: "attached" });
  check(`${place}: the map marks it`, (await page.locator(".map .edge.closes").first().getAttribute("aria-label")).includes("Try closes"));
  await page.locator(".tried").getByRole("link", { name: "Try" }).click();
  await editor(page).waitFor();
  check(`${place}: the text is still there`, (await editor(page).textContent()).includes("name: tried"));
};

// An edit of a policy of a file.
export const edits = async (page, place) => {
  const consequences = page.locator("#consequences");
  await consequences.getByText("no connection changes").waitFor();
  const text = await editor(page).innerText();
  check(`${place}: the policy is in the editor`, text.includes("name: backend-from-frontend"), text);
  await editor(page).click();
  await page.keyboard.press("Control+a");
  await page.keyboard.press("Delete");
  await consequences.getByText("because NetworkPolicy shop/backend-from-frontend removed").waitFor();
  const patch = await saved(page, "Download patch");
  check(`${place}: a patch is downloaded`, patch.text.startsWith("--- examples/shop/") && patch.text.includes("\n-  name: backend-from-frontend\n"), JSON.stringify(patch));
  // Labels that exist are offered.
  await replace(page, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: tried, namespace: shop}\nspec:\n  podSelector:\n    matchLabels:\n      app: ");
  await page.keyboard.type("ba");
  await page.locator(".cm-tooltip-autocomplete li", { hasText: "backend" }).waitFor();
  await page.keyboard.press("Escape");
  await settled(page);
};

// Names that are markup.
export const hostile = async (page, place) => {
  await page.locator("#consequences strong").waitFor();
  await replace(page, `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: "<img src=x onerror=window.stolen=1>", namespace: shop}\nspec: {podSelector: {}}\n`);
  await page.locator("#found .bad").first().waitFor();
  check(`${place}: the name is shown as text`, (await page.locator("#found").textContent()).includes("<img src=x onerror=window.stolen=1>"), await page.locator("#found").textContent());
  await replace(page, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: {podSelector: {}}\n");
  await page.locator("#consequences .rows li").first().waitFor();
};

// From a keystroke to its consequences, with 1,000 workloads.
export const isQuick = async (page, place) => {
  await page.locator("#consequences strong").waitFor({ timeout: 120_000 });
  await replace(page, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: tried, namespace: team-05}\nspec: {podSelector: {matchLabels: {app: app-1}}, ingress: [{from: [{podSelector: {}}]}]}\n");
  await page.locator("#consequences .rows li").first().waitFor({ timeout: 120_000 });
  await page.evaluate(() => performance.clearMeasures());
  for (const port of [80, 81, 82, 83, 84]) {
    await replace(page, `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: tried, namespace: team-05}\nspec: {podSelector: {matchLabels: {app: app-1}}, ingress: [{from: [{podSelector: {}}], ports: [{port: ${port}}]}]}\n`);
    await settled(page);
    await page.waitForTimeout(200);
  }
  const times = await page.evaluate(() => performance.getEntriesByName("try").map((entry) => entry.duration).sort((a, b) => a - b));
  console.log(`${place}: from keystroke to consequence ${times[Math.floor(times.length / 2)]?.toFixed(0)} ms (median of ${times.length})`);
  check(`${place}: consequences are shown`, times.length > 0 && (await page.locator("#consequences .rows li").count()) > 0);
};
