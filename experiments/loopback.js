// Preloaded into NNI's manager (NODE_OPTIONS=--require): whatever it listens on, and whatever
// TensorBoard it starts, is on loopback. NNI 2.10.1 has no option for it: it listens on every
// interface, without a password.
const childProcess = require('child_process');
const net = require('net');
const { listen } = net.Server.prototype;
const { spawn } = childProcess;

net.Server.prototype.listen = function (...args) {
    const isPort = (x) => typeof x === 'number' || (typeof x === 'string' && /^\d+$/.test(x));
    if (args[0] !== null && typeof args[0] === 'object' && 'port' in args[0]) {
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
