"""The equations of more cells in NumPy: the classical zoo, neuroscience, convolutions."""

import numpy as np

from jaxrnn import LEMState, LSTMState, OscillatorState

tanh = np.tanh


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def matmul(x, w):
    """Multiply x (B, D) by w (D, G, H): G arrays (B, H)."""
    return np.einsum("bd,dgh->gbh", x, w)


def lstm_gates(z, c):
    i, f, g, o = z
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def mgu(p, h, x):
    u_f, u_n = matmul(x, p.w_x) + p.b[:, None]
    f = sigmoid(u_f + h @ p.w_h[:, 0])
    h = (1 - f) * h + f * tanh(u_n + (f * h) @ p.w_h[:, 1])
    return h, h


def rhn(p, h, x):
    for layer in range(len(p.w_h)):
        n, g = matmul(h, p.w_h[layer]) + p.b[layer, :, None] + (layer == 0) * matmul(x, p.w_x)
        h = sigmoid(g) * tanh(n) + (1 - sigmoid(g)) * h
    return h, h


def lem(p, s, x):
    a, b, u_z, u_y = matmul(x, p.w_x) + p.b[:, None]
    a, b = (0.5 * sigmoid(u + s.y @ p.w_h[:, i]) for i, u in enumerate((a, b)))
    z = (1 - a) * s.z + a * tanh(u_z + s.y @ p.w_h[:, 2])
    y = (1 - b) * s.y + b * tanh(u_y + z @ p.w_h[:, 3])
    return LEMState(y, z), y


def cornn(p, s, x):
    force = tanh(x @ p.w_x[:, 0] + p.b[0] + np.concatenate([s.y, s.z], 1) @ p.w_h[:, 0])
    z = s.z + 0.05 * force - 0.05 * s.y - 0.05 * 0.5 * s.z
    return OscillatorState(s.y + 0.05 * z, z), s.y + 0.05 * z


def fast_grnn(p, h, x):
    both = x @ p.w_x[:, 0] + h @ p.w_h[:, 0]
    z, c = sigmoid(both + p.b[0]), tanh(both + p.b[0] + p.local.shift)
    h = (sigmoid(p.local.zeta) * (1 - z) + sigmoid(p.local.nu)) * c + z * h
    return h, h


def multiplicative_lstm(p, s, x):
    m = (x @ p.m_x[:, 0]) * (s.h @ p.m_h[:, 0])
    h, c = lstm_gates(matmul(x, p.w_x) + matmul(m, p.w_h) + p.b[:, None], s.c)
    return LSTMState(h, c), h


def leaky(p, h, x):
    h = 0.8 * h + 0.2 * np.maximum(x @ p.w_x[:, 0] + h @ p.w_h[:, 0] + p.b[0], 0)
    return h, h


def leaky_dale(p, h, x):
    w = np.abs(p.w_h[:, 0]) * np.array([1, 1, 1, 1, -1, -1.0])[:, None]
    alpha = sigmoid(p.local)
    h = (1 - alpha) * h + alpha * np.log1p(np.exp(x @ p.w_x[:, 0] + h @ w + p.b[0]))
    return h, h


def cfc(p, h, x):
    g, q, a, b = matmul(x, p.w_x) + matmul(h, p.w_h) + p.b[:, None]
    k = sigmoid(0.7 * a + b)
    h = (1 - k) * tanh(g) + k * tanh(q)
    return h, h


def ltc(p, h, x):
    for _ in range(3):
        f = sigmoid(x @ p.w_x[:, 0] + h @ p.w_h[:, 0] + p.b[0])
        h = (h + 0.7 / 3 * f * p.a) / (1 + 0.7 / 3 * (1 / np.exp(p.log_tau) + f))
    return h, h


def echo_state(p, h, x):
    h = 0.7 * h + 0.3 * tanh(x @ p.w_x[:, 0] + h @ p.w_h[:, 0] + p.b[0])
    return h, h


def convolved(x, w, image):
    """Convolve images x (B, height * width * C) with kernels w (9 C, G, F), pixel by pixel."""
    height, width = image
    x = np.pad(x.reshape(len(x), height, width, -1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = [[x[:, i : i + 3, j : j + 3].reshape(len(x), -1) for j in range(width)] for i in range(height)]
    out = np.stack([np.stack([matmul(p, w) for p in row], 2) for row in patches], 2)
    return out.reshape(w.shape[1], len(x), -1)


def conv_lstm(p, s, x):
    v = convolved(x, p.w_x, (1, 2)) + convolved(s.h, p.w_h, (1, 2))
    h, c = lstm_gates(v + np.tile(p.b, 2)[:, None], s.c)
    return LSTMState(h, c), h


def conv_gru(p, h, x):
    u, v = convolved(x, p.w_x, (2, 2)) + np.tile(p.b, 4)[:, None], convolved(h, p.w_h[:, :2], (2, 2))
    r, z = sigmoid(u[0] + v[0]), sigmoid(u[1] + v[1])
    h = (1 - z) * h + z * tanh(u[2] + convolved(r * h, p.w_h[:, 2:], (2, 2))[0])
    return h, h


CLASSIC_AND_NEUROSCIENCE = {
    "mgu": mgu,
    "rhn": rhn,
    "lem": lem,
    "cornn": cornn,
    "fast_grnn": fast_grnn,
    "multiplicative_lstm": multiplicative_lstm,
    "leaky": leaky,
    "leaky_dale": leaky_dale,
    "cfc": cfc,
    "ltc": ltc,
    "echo_state": echo_state,
    "conv_lstm": conv_lstm,
    "conv_gru": conv_gru,
}
