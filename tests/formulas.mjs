// Renders every block of ```math in the documentation with KaTeX, as MathML, into the header of the
// documentation: browsers draw MathML by themselves, so that neither building nor reading it needs
// a network.
//
//   npm install --prefix target/katex katex@0.16
//   node tests/formulas.mjs target/katex/node_modules/katex

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const katex = createRequire(import.meta.url)(resolve(process.argv[2]));
const formulas = {};
const files = readdirSync("src", { recursive: true }).filter((name) => /\.(rs|md)$/.test(name));
for (const file of files.sort()) {
    const text = readFileSync(`src/${file}`, "utf8").replace(/^ *\/\/[\/!] ?/gm, "");
    for (const [, block] of text.matchAll(/^```math\n([^]*?)^```$/gm)) {
        const formula = block.trim().replace(/\s+/g, " ");
        const options = { output: "mathml", displayMode: true, throwOnError: true };
        formulas[formula] = katex
            .renderToString(formula, options)
            .replace(/<annotation[^]*?<\/annotation>/, "")
            .replace(/^<span class="katex">|<\/span>$/g, "");
    }
}
const lines = Object.entries(formulas).map((entry) => {
    const [formula, drawn] = entry.map((text) => JSON.stringify(text));
    return `    ${formula}: ${drawn}`;
});
writeFileSync(
    "src/guide/formulas.html",
    `<!-- Made by tests/formulas.mjs with KaTeX ${katex.version}. -->
<style>
math[display="block"] { margin: 1em 0; overflow-x: auto; overflow-y: hidden; }
.docblock > svg { max-width: 100%; height: auto; }
</style>
<script>
addEventListener("DOMContentLoaded", () => {
const formulas = {
${lines.join(",\n")}
};
for (const block of document.querySelectorAll("pre.language-math")) {
    const formula = formulas[block.textContent.trim().replace(/\\s+/g, " ")];
    if (formula) (block.closest(".example-wrap") ?? block).outerHTML = formula;
}
});
</script>
`,
);
console.log(`${lines.length} formulas`);
