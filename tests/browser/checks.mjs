// Counts checks, and looks for what a page makes hard to use.
import fs from "node:fs";
import { createRequire } from "node:module";

const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let failures = 0;
let checks = 0;
export const check = (name, passed, more = "") => {
  checks += 1;
  if (passed) return;
  failures += 1;
  console.error(`FAILED: ${name} ${more}`);
};

// Ends the program with the result.
export const finish = () => {
  console.log(`${checks} checks, ${failures} failed`);
  process.exit(failures === 0 ? 0 : 1);
};

// axe runs in an isolated world, in which the page's policy doesn't apply.
export const accessible = async (name, page) => {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id, worldName: "axe" });
  await session.send("Runtime.evaluate", { expression: axe, contextId: executionContextId });
  const { result, exceptionDetails } = await session.send("Runtime.evaluate", {
    expression: `axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }).then((r) => JSON.stringify(r.violations.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 160), v.nodes[0].failureSummary.slice(0, 300)])))`,
    contextId: executionContextId, awaitPromise: true,
  });
  check(`${name}: axe runs`, !exceptionDetails, JSON.stringify(exceptionDetails || ""));
  check(`${name}: axe finds nothing`, result.value === "[]", result.value);
};
