// Preloaded into NNI's manager (NODE_OPTIONS=--require), for which NNI 2.10.1 has no options:
// - Whatever it listens on, and whatever TensorBoard it starts, is on loopback. NNI listens on every
//   interface, without a password.
// - Its temporary files are its own. NNI keeps what GPUs there are in one folder a user, which the
//   experiment that ends first takes from under the others.
// - Its tuner is given up when it has ended. NNI does so after ten seconds, in which a busy machine
//   may not start it.
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

let tuner;

childProcess.spawn = function (command, args, ...options) {
    const local = (x) => (typeof x === 'string' ? x.replace('--bind_all', '--host=127.0.0.1') : x);
    const child = spawn(local(command), Array.isArray(args) ? args.map(local) : args, ...options);
    if (Array.isArray(args) && args.includes('--exp_params')) tuner = child;
    return child;
};

const lives = (child) => child && child.exitCode === null && child.signalCode === null;
const { setTimeout } = global;
global.setTimeout = function (then, ...rest) {
    const late = () => (lives(tuner) ? setTimeout(late, 1000) : then());
    return setTimeout(String(then).includes('Tuner did not connect') ? late : then, ...rest);
};
Object.defineProperties(global.setTimeout, Object.getOwnPropertyDescriptors(setTimeout));

const given = (name) => process.argv[process.argv.indexOf(name) + 1];
if (process.argv.includes('--experiment-id')) {
    const folder = path.join(given('--experiments-directory'), given('--experiment-id'), 'tmp');
    fs.mkdirSync(folder, { recursive: true });
    os.tmpdir = () => folder;
}
