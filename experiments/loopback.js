// Preloaded into NNI's manager (NODE_OPTIONS=--require): whatever it listens on, and whatever
// TensorBoard it starts, is on loopback. NNI 2.10.1 has no option for it: it listens on every
// interface, without a password. And its temporary files are its own: NNI keeps what GPUs there are
// in one folder a user, which the experiment that ends first takes from under the others.
const childProcess = require('child_process');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const { listen } = net.Server.prototype;
const { spawn } = childProcess;

net.Server.prototype.listen = function (...args) {
    const isPort = (x) => typeof x === 'number' || (typeof x === 'string' && /^\d+$/.test(x));
    if (args[0] === undefined || args[0] === null || typeof args[0] === 'function') {
        args.splice(0, typeof args[0] === 'function' ? 0 : 1, { port: 0, host: '127.0.0.1' });
    } else if (typeof args[0] === 'object' && 'port' in args[0]) {
        args[0] = { ...args[0], host: '127.0.0.1' };
    } else if (isPort(args[0])) {
        args.splice(1, typeof args[1] === 'string' ? 1 : 0, '127.0.0.1');
    }
    return listen.apply(this, args);
};

childProcess.spawn = function (command, args, ...options) {
    const local = (x) => (typeof x === 'string' ? x.replace('--bind_all', '--host=127.0.0.1') : x);
    return spawn(local(command), Array.isArray(args) ? args.map(local) : args, ...options);
};

const given = (name) => process.argv[process.argv.indexOf(name) + 1];
if (process.argv.includes('--experiment-id')) {
    const folder = path.join(given('--experiments-directory'), given('--experiment-id'), 'tmp');
    fs.mkdirSync(folder, { recursive: true });
    os.tmpdir = () => folder;
}
