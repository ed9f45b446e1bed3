import test from 'ava';
import { runCompiled } from './compiled.js';

test('no step of a training after the first 50 is stopped for a collection, and forgotten tensors do not pile up', (t) => {
  const printed = runCompiled(t, 'collection_mark.cc');
  if (printed === null) return;
  t.log(printed);
  const counted = new Map(
    [...printed.matchAll(/^(.+): (\d+) now, (\d+) soon, (\d+) MiB$/gm)].map(([, name, ...numbers]) => {
      const [now, soon, most] = numbers.map(Number) as [number, number, number];
      return [name!, { now, soon, most }];
    }),
  );
  const steps = counted.get('2,000 more')!;
  t.is(steps.now, 0);
  t.true(steps.soon <= 8);
  for (const name of ['forgetting', 'forgetting after 50 GiB']) {
    t.true(counted.get(name)!.most < 3 * 1024, name);
    t.true(counted.get(name)!.now > 100, name);
  }
});
