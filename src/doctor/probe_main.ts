import type { BackendName } from '../native/types.js';
import { probeBackend } from './probe.js';

console.log(JSON.stringify(probeBackend(process.argv[2] as BackendName)));
