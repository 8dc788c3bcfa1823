// Loaded into NNI's manager before its own code (NODE_OPTIONS=--require), because NNI 2.10.1 has no options
// for what is changed here. Paths are in the package nni_node.
const childProcess = require('child_process');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');

// 1. All servers listen on loopback. NNI's web server and its channel to other machines
// (rest_server/index.js:53, common/restServer.js:39) listen on every interface, without a password.
// No longer needed when nnictl can be told an address to listen on.
const { listen } = net.Server.prototype;
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

// So does TensorBoard, which NNI starts with --bind_all (extensions/nniTensorboardManager.js:110), in a shell, and
// which would outlive a manager that is killed; judge/common/children.py binds it. The process with --exp_params is
// that of tuner and assessor; ours reports their errors (dispatcher.py).
const root = path.resolve(__dirname, '../..');
const argument = (name) => process.argv[process.argv.indexOf(name) + 1];
const { spawn } = childProcess;
let tuner;
childProcess.spawn = function (command, args, options, ...rest) {
    if (!Array.isArray(args)) return spawn(command, args, options, ...rest);
    if (command === 'tensorboard') {
        const words = args.join(' ').replace('--bind_all', '--host=127.0.0.1').split(' '); // as the shell would
        const bound = ['-I', '-S', path.join(root, 'judge/common/children.py'), process.pid, command, ...words];
        return spawn(argument('--python-interpreter'), bound.map(String), { ...options, shell: false });
    }
    if (!args.includes('--exp_params')) return spawn(command, args, options, ...rest);
    const env = options.env ?? process.env;
    const PYTHONPATH = [root, env.PYTHONPATH].filter(Boolean).join(':');
    const ours = args.map((x) => (x === 'nni' ? 'experiments.nni_adapter.dispatcher' : x));
    tuner = spawn(command, ours, { ...options, env: { ...env, PYTHONPATH } });
    return tuner;
};

// 2. The manager waits for its tuner as long as the tuner's process lives. NNI gives up after ten seconds
// (core/tuner_command_channel/websocket_channel.js:47), in which a busy machine may not have started it, but
// no sooner if it has ended. No longer needed when that time can be set.
const isAlive = (child) => child && child.exitCode === null && child.signalCode === null;
const { setTimeout } = global;
global.setTimeout = function (callback, ...rest) {
    if (!String(callback).includes('Tuner did not connect')) return setTimeout(callback, ...rest);
    const whenTunerEnded = () => (isAlive(tuner) ? setTimeout(whenTunerEnded, 1000) : callback());
    return setTimeout(whenTunerEnded, 1000);
};
Object.defineProperties(global.setTimeout, Object.getOwnPropertyDescriptors(setTimeout));

// 3. Each experiment has its own folder for temporary files. NNI keeps its list of GPUs in one folder for
// each user (training_service/local/gpuScheduler.js:21) and stops its collector for all experiments when the
// first ends. No longer needed when that folder's name holds the experiment's id.
if (process.argv.includes('--experiment-id')) {
    const folder = path.join(argument('--experiments-directory'), argument('--experiment-id'), 'tmp');
    fs.mkdirSync(folder, { recursive: true });
    os.tmpdir = () => folder;
}

// 4. The manager ends, and so do its trials, when the process that started the experiment has ended in any
// way, also by kill -9. No longer needed when nnictl has an option for it.
const starter = process.env.SALON_STARTER;
if (starter && process.argv.includes('--experiment-id')) {
    const state = () => {
        try {
            const fields = fs.readFileSync(`/proc/${starter}/stat`, 'latin1').split(') ').pop().split(' ');
            return fields[0] === 'Z' ? undefined : fields[19]; // when it was started: its number may be reused
        } catch (error) {
            return undefined;
        }
    };
    const first = state();
    const watching = setInterval(() => {
        if (first !== undefined && state() === first) return;
        clearInterval(watching);
        process.kill(process.pid, 'SIGTERM');
    }, 1000);
}
