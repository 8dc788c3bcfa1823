// Preloaded into NNI's manager (NODE_OPTIONS=--require): whatever it listens on, it listens on
// loopback. NNI 2.10.1 has no option for it and listens on every interface, without a password.
const net = require('net');
const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (...args) {
    const isPort = (x) => typeof x === 'number' || (typeof x === 'string' && /^\d+$/.test(x));
    if (args[0] !== null && typeof args[0] === 'object' && 'port' in args[0]) {
        args[0] = { ...args[0], host: '127.0.0.1' };
    } else if (isPort(args[0])) {
        args.splice(1, typeof args[1] === 'string' ? 1 : 0, '127.0.0.1');
    }
    return listen.apply(this, args);
};
