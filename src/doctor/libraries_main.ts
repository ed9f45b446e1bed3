/** Runs in a child process of doctor: tries to load each library named on the command line, and prints which of them the
 * dynamic linker finds. */
function loads(file: string): boolean {
  try {
    process.dlopen({ exports: {} } as NodeModule, file);
    return true;
  } catch (error) {
    // Node.js loads the library first and then refuses it, since it is no addon.
    return /did not self-register/i.test((error as Error).message);
  }
}

console.log(JSON.stringify(process.argv.slice(2).filter(loads)));
