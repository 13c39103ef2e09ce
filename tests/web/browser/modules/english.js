// Gives the page's modules the texts that ship, where no page brings them along.

import { readFileSync } from "node:fs";

import { useMessages } from "../../../../src/hemoscope/web/static/messages.js";

const { locale, ...texts } = JSON.parse(readFileSync(new URL("../../../../src/hemoscope/messages/en.json", import.meta.url), "utf8"));

useMessages({ locale, texts, fallback: null });
