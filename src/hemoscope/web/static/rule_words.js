// The rules by which thresholds were chosen (hemoscope/evaluation/threshold_rules.py), in words.

import { t } from "./messages.js";

const SHARES = ["sensitivity", "specificity", "precision"];
const NOT_BELOW_ANY = ", not below any";

const whole = (text) => t("meaning.percent", { value: Number((Number(text) * 100).toFixed(1)) });

function words(rule) {
  const [, name, target] = /^([a-z-]+)(?:(?: >=)? ([0-9.eE+-]+))?$/.exec(rule) ?? [];
  if (name === "youden") return t("rule.youden");
  if (name === "f-beta" && target) return t("rule.f-beta", { beta: target });
  if (SHARES.includes(name) && target) return t(`rule.${name}`, { share: whole(target) });
  return null;
}

/** "chosen for a sensitivity of at least 90%"; a rule of the model's maker is quoted as it stands. */
export function ruleWords(rule) {
  const known = words(rule.replace(NOT_BELOW_ANY, ""));
  if (!known) return t("rule.other", { rule });
  return rule.endsWith(NOT_BELOW_ANY) ? t("rule.not-below-any", { rule: known }) : known;
}
