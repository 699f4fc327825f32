import fs from "node:fs";
import path from "node:path";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Licences of what is built into the pages: they are part of the program, which is Apache-2.0.
const ALLOWED = ["MIT", "ISC", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause"];

// Returns the folder of the package to which a module belongs.
const packageOf = (module) => {
  const found = /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(module.replace(/^\0/, "").split("?")[0]);
  return found?.[0];
};

// Writes the licences of all packages that are in the pages, and fails for one that is not allowed.
const licenses = () => ({
  name: "licenses",
  generateBundle(_, bundle) {
    const folders = new Set();
    for (const chunk of Object.values(bundle)) {
      for (const module of Object.keys(chunk.modules ?? {})) {
        const folder = packageOf(module);
        if (folder) folders.add(folder);
      }
    }
    const texts = [...folders].sort().map((folder) => {
      const { name, version, license } = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"));
      if (!ALLOWED.includes(license)) this.error(`${name} ${version}: its licence is ${license}; allowed are ${ALLOWED.join(", ")}`);
      const file = fs.readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
      const text = file ? fs.readFileSync(path.join(folder, file), "utf8").trim() : `${license}`;
      return `${name} ${version} (${license})\n\n${text}\n`;
    });
    const separator = `\n${"-".repeat(80)}\n\n`;
    this.emitFile({ type: "asset", fileName: "licenses.txt", source: `The pages contain these packages.\n${separator}${texts.join(separator)}` });
  },
});

export default defineConfig({
  plugins: [svelte({ compilerOptions: { runes: true } }), licenses()],
  build: {
    target: "es2022",
    // The program embeds these files by their names.
    rollupOptions: {
      output: { codeSplitting: false, entryFileNames: "app.js", assetFileNames: (asset) => (asset.names.some((name) => name.endsWith(".css")) ? "app.css" : "[name][extname]") },
    },
    modulePreload: false,
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1500,
  },
});
