"""A network, its loss and every gradient in NumPy's float64, from the papers' formulas.

Each function returns its result and a function from the result's gradient to those of its
arguments. Nothing of the package computes here.
"""

import numpy as np

from tests.models.layers import convolve, convolve_gradients


def batch_norm(z, scale, bias, epsilon):
    """Ioffe & Szegedy 2015: over the batch and all voxels."""
    axes, count = (0, 1, 2, 3), z[..., 0].size
    spread = np.sqrt(z.var(axes) + epsilon)
    normal = (z - z.mean(axes)) / spread

    def pull(d):
        dn = d * scale
        dz = (dn - dn.mean(axes) - normal * (dn * normal).sum(axes) / count) / spread
        return dz, (d * normal).sum(axes), d.sum(axes)

    return scale * normal + bias, pull


def relu(x):
    return np.maximum(x, 0), lambda d: d * (x > 0)


def sigmoid(x):
    y = 1 / (1 + np.exp(-x))
    return y, lambda d: d * y * (1 - y)


def max_pool(x):
    """Of 2 x 2 x 2 windows; the first maximum takes the gradient."""
    n, c = x.shape[0], x.shape[-1]
    half = [s // 2 for s in x.shape[1:4]]
    whole = x[:, : 2 * half[0], : 2 * half[1], : 2 * half[2]]
    split = whole.reshape(n, half[0], 2, half[1], 2, half[2], 2, c)
    windows = split.transpose(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, *half, c, 8)
    first = windows.argmax(-1)[..., None]

    def pull(d):
        spread = np.zeros(windows.shape)
        np.put_along_axis(spread, first, d[..., None], -1)
        back = spread.reshape(n, *half, c, 2, 2, 2).transpose(0, 1, 5, 2, 6, 3, 7, 4)
        dx = np.zeros(x.shape)
        dx[:, : 2 * half[0], : 2 * half[1], : 2 * half[2]] = back.reshape(whole.shape)
        return dx

    return np.take_along_axis(windows, first, -1)[..., 0], pull


def mean_and_maximum(x, axes):
    """Both over some axes; of equal maxima the first takes the gradient."""
    mean, top = x.mean(axes), x.max(axes)
    rest = [a for a in range(x.ndim) if a not in axes]
    turned = x.transpose(*rest, *axes)
    flat = turned.reshape(*turned.shape[: len(rest)], -1)
    first = np.zeros(flat.shape)
    np.put_along_axis(first, flat.argmax(-1)[..., None], 1, -1)
    chosen = first.reshape(turned.shape).transpose(np.argsort([*rest, *axes]))

    def pull(d_mean, d_top):
        shared = np.expand_dims(d_mean, axes) / flat.shape[-1]
        return shared + np.expand_dims(d_top, axes) * chosen

    return mean, top, pull


def channel_gate(x, p, *, maximum):
    """Hu et al. 2018, and with the maximum Woo et al. 2018: s = sigmoid(W2 relu(W1 pooled))."""
    mean, top, spread = mean_and_maximum(x, (1, 2, 3))
    pooled = [mean, top] if maximum else [mean]
    w1, w2 = p["down_kernel"], p["up_kernel"]
    hidden = [relu(v @ w1) for v in pooled]
    weight, through = sigmoid(sum(h @ w2 for h, _ in hidden))
    at = np.s_[:, None, None, None]

    def pull(d):
        ds = through((d * x).sum((1, 2, 3)))
        dw1, dw2, back = np.zeros(w1.shape), np.zeros(w2.shape), [0 * mean, 0 * mean]
        for i, (v, (h, of_relu)) in enumerate(zip(pooled, hidden, strict=True)):
            dw2 += h.T @ ds
            dh = of_relu(ds @ w2.T)
            dw1 += v.T @ dh
            back[i] = dh @ w1.T
        gradients = {"down_kernel": dw1, "up_kernel": dw2}
        return d * weight[at] + spread(*back), gradients

    return x * weight[at], weight, pull


def spatial_gate(x, p):
    """Woo et al. 2018: sigmoid of a convolution of mean and maximum over channels."""
    mean, top, spread = mean_and_maximum(x, (4,))
    both = np.stack([mean, top], -1)
    weight, through = sigmoid(convolve(both, p["kernel"]) + p["bias"])

    def pull(d):
        dz = through((d * x).sum(-1, keepdims=True))
        d_both, dk = convolve_gradients(both, p["kernel"], dz)
        gradients = {"kernel": dk, "bias": dz.sum((0, 1, 2, 3))}
        return d * weight + spread(d_both[..., 0], d_both[..., 1]), gradients

    return x * weight, weight[..., 0], pull


def gate(x, p, kind):
    """Returns gated maps, the gate's weights by name, and the way back."""
    if kind == "map":
        w = p["weight"][..., None]
        weights = {"gate": np.broadcast_to(p["weight"], x.shape[:4])}
        return x * w, weights, lambda d: (d * w, {"weight": (d * x).sum((0, 4))})
    weights, pulls = {}, []
    if kind in ("se", "cbam"):
        x, weights["channels"], pull = channel_gate(x, p, maximum=kind == "cbam")
        pulls.append(pull)
    if kind in ("spatial", "cbam"):
        x, weights["gate"], pull = spatial_gate(x, p)
        pulls.append(pull)

    def back(d):
        gradients = {}
        for pull in reversed(pulls):
            d, found = pull(d)
            gradients |= found
        return d, gradients

    return x, weights, back


def cross_entropy(logits, labels):
    """Mean over the batch."""
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    chosen = np.eye(logits.shape[1])[labels]
    return -(log_p * chosen).sum(1).mean(), (np.exp(log_p) - chosen) / len(logits)


def network(spec, params, x, labels):
    """Returns logits, loss, the weights of gates, and the gradients of parameters and volumes."""
    pulls, weights, layer = [], {}, 0
    for block, count in enumerate(spec.repetitions, start=1):
        for _ in range(count):
            layer += 1
            x = conv_layer(x, params, layer, spec.epsilon, pulls)
        x, pull = max_pool(x)
        pulls.append((None, pull))
        if block in spec.attention_blocks:
            x, found, pull = gate(x, params[f"att{block}"], spec.attention)
            weights |= {f"att{block}/{name}": weight for name, weight in found.items()}
            pulls.append((f"att{block}", pull))
    shape = x.shape
    x = x.reshape(len(x), -1)
    pulls.append((None, lambda d: d.reshape(shape)))
    for i in range(1, len(spec.fc) + 2):
        p, given = params[f"fc{i}"], x

        def pull(d, p=p, given=given):
            return d @ p["kernel"].T, {"kernel": given.T @ d, "bias": d.sum(0)}

        x = given @ p["kernel"] + p["bias"]
        pulls.append((f"fc{i}", pull))
        if i <= len(spec.fc):
            x, pull = relu(x)
            pulls.append((None, pull))
    loss, d = cross_entropy(x, labels)
    gradients = {}
    for name, pull in reversed(pulls):
        if name is None:
            d = pull(d)
        else:
            d, gradients[name] = pull(d)
    return x, loss, weights, gradients, d


def conv_layer(x, params, layer, epsilon, pulls):
    kernel, norm = params[f"conv{layer}"]["kernel"], params[f"bn{layer}"]

    def pull_conv(d):
        dx, dk = convolve_gradients(x, kernel, d)
        return dx, {"kernel": dk}

    z, pull_norm = batch_norm(convolve(x, kernel), norm["scale"], norm["bias"], epsilon)
    y, pull_relu = relu(z)
    pulls.append((f"conv{layer}", pull_conv))

    def named(d):
        dz, scale, bias = pull_norm(d)
        return dz, {"scale": scale, "bias": bias}

    pulls += [(f"bn{layer}", named), (None, pull_relu)]
    return y
