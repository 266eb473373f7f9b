// The names of standard library modules that Pyodide has not, as JSON:  node library.mjs PACKAGE
import { dirname } from "node:path";

const entry = `${process.argv[2]}/pyodide.mjs`;
const { loadPyodide } = await import(entry);
const pyodide = await loadPyodide({ indexURL: dirname(new URL(import.meta.resolve(entry)).pathname) });
const names = pyodide.runPython(`
import importlib, json, sys

def importable(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True

# Left out: what is private, and what does something when it is imported.
skipped = {"antigravity", "idlelib", "this"}
names = [name for name in sys.stdlib_module_names if not name.startswith("_")]
json.dumps([name for name in names if name not in skipped and not importable(name)])
`);
process.stdout.write(names, () => process.exit(0));
