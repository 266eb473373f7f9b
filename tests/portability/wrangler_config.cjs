// Reads [{config, env}] from standard input; prints wrangler's reading of each file, or its error.
const { readFileSync } = require("node:fs");
const wrangler = require("wrangler");

const asked = JSON.parse(readFileSync(0, "utf8"));
console.log = console.warn = console.error = () => {};
const answers = asked.map(({ config, env }) => {
  try {
    const read = wrangler.unstable_readConfig({ config, env }, { hideWarnings: true });
    const vars = wrangler.unstable_getVarsForDev(config, undefined, read.vars, env, true, read.secrets);
    return { config: read, vars };
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
});
process.stdout.write(JSON.stringify(answers));
