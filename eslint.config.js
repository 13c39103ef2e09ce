// Lint of the reading room's modules: npm ci, then npx eslint. See tests/web/browser/test_modules.py.

import js from "@eslint/js";
import globals from "globals";

const rules = {
  ...js.configs.recommended.rules,
  "complexity": ["error", 10],
  "consistent-return": "off",
  "curly": ["error", "multi-line"],
  "eqeqeq": "error",
  "max-lines": ["error", 250],
  "max-lines-per-function": ["error", { max: 66 }],
  "no-eval": "error",
  "no-implied-eval": "error",
  "no-restricted-properties": ["error", ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) => ({ property, message: "Text is never markup: use element.js." }))],
  "no-shadow": "error",
  "no-var": "error",
  "no-unused-expressions": ["error", { allowTernary: true }],
  "prefer-const": "error",
  "require-await": "error",
};

export default [
  { files: ["src/hemoscope/web/static/**/*.js"], languageOptions: { globals: globals.browser }, rules },
  { files: ["tests/web/browser/**/*.js", "eslint.config.js"], languageOptions: { globals: globals.node }, rules },
];
