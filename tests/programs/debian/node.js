#!/usr/bin/env node
// real work for node: files, children, HTTP, workers, timers, garbage
const fs = require('fs'), http = require('http'), cp = require('child_process'), crypto = require('crypto'), os = require('os'), zlib = require('zlib');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (!isMainThread) { parentPort.postMessage(workerData * 2); process.exit(0); }
(async () => {
  fs.writeFileSync('f', 'x'.repeat(100000)); console.log(fs.statSync('f').size, fs.readdirSync('/usr/lib/python3.11/json').filter(n => n.endsWith('.py')).sort().join());
  await fs.promises.appendFile('f', 'tail'); console.log((await fs.promises.readFile('f')).length);
  console.log(crypto.createHash('sha256').update(fs.readFileSync('f')).digest('hex'));
  console.log(cp.execSync('echo from a child').toString().trim(), cp.spawnSync('sh', ['-c', 'exit 3']).status);
  const server = http.createServer((request, response) => response.end('hello ' + request.url)); await new Promise(r => server.listen(0, '127.0.0.1', r));
  const get = path => new Promise(r => http.get({ port: server.address().port, host: '127.0.0.1', path }, s => { let t = ''; s.on('data', d => t += d); s.on('end', () => r(t)); }));
  console.log(await get('/a'), (await Promise.all([...Array(50).keys()].map(i => get('/' + i)))).length); server.close();
  const worker = new Worker(__filename, { workerData: 21 }); console.log(await new Promise(r => worker.on('message', r)));
  console.log(zlib.gunzipSync(zlib.gzipSync('z'.repeat(10000))).length);
  console.log(await new Promise(r => { const c = cp.spawn('cat'); let t = ''; c.stdout.on('data', d => t += d); c.on('close', s => r(t + s)); c.stdin.end('through a pipe '); }));
  process.once('SIGUSR2', () => console.log('SIGUSR2')); process.kill(process.pid, 'SIGUSR2'); await new Promise(r => setTimeout(r, 50));
  let s = 0; for (let i = 0; i < 1e7; i++) s = (s + i * i) % 1000003; console.log(s, os.platform(), os.arch());
  const a = []; for (let i = 0; i < 200000; i++) a.push({ i, t: 'n' + i }); console.log(a.length, JSON.parse(JSON.stringify(a)).length);
})();
