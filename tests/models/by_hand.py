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


def norm_of_volumes(z, scale, bias, epsilon, size):
    """Over the voxels of a volume and groups of ``size`` channels.

    With one channel Ulyanov et al. 2016, with more Wu & He 2018.
    """
    shape = (*z.shape[:4], z.shape[4] // size, size)
    groups, axes = z.reshape(shape), (1, 2, 3, 5)
    spread = np.sqrt(groups.var(axes, keepdims=True) + epsilon)
    normal = (groups - groups.mean(axes, keepdims=True)) / spread

    def pull(d):
        dn = (d * scale).reshape(shape)
        mean = dn.mean(axes, keepdims=True)
        dz = (dn - mean - normal * (dn * normal).mean(axes, keepdims=True)) / spread
        each = d * normal.reshape(z.shape)
        return dz.reshape(z.shape), each.sum((0, 1, 2, 3)), d.sum((0, 1, 2, 3))

    return scale * normal.reshape(z.shape) + bias, pull


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
        x, pull = conv_block(spec, params, x, range(layer + 1, layer + count + 1), block)
        layer += count
        pulls.append(pull)
        x, pull = max_pool(x)
        pulls.append(plain(pull))
        if block in spec.attention_blocks:
            x, found, pull = gate(x, params[f"att{block}"], spec.attention)
            weights |= {f"att{block}/{name}": weight for name, weight in found.items()}
            pulls.append(named(f"att{block}", pull))
    shape = x.shape
    x = x.reshape(len(x), -1)
    pulls.append(plain(lambda d: d.reshape(shape)))
    for i in range(1, len(spec.fc) + 2):
        p, given = params[f"fc{i}"], x

        def pull(d, p=p, given=given):
            return d @ p["kernel"].T, {"kernel": given.T @ d, "bias": d.sum(0)}

        x = given @ p["kernel"] + p["bias"]
        pulls.append(named(f"fc{i}", pull))
        if i <= len(spec.fc):
            x, pull = relu(x)
            pulls.append(plain(pull))
    loss, d = cross_entropy(x, labels)
    d, gradients = chain(pulls)(d)
    return x, loss, weights, gradients, d


def plain(pull):
    """Of what has no parameters."""
    return lambda d: (pull(d), {})


def named(name, pull):
    """Of what has parameters, under the name of the layer."""

    def run(d):
        d, gradients = pull(d)
        return d, {name: gradients}

    return run


def chain(pulls):
    """Returns the way back through functions that were taken in this order."""

    def run(d):
        gradients = {}
        for pull in reversed(pulls):
            d, found = pull(d)
            gradients |= found
        return d, gradients

    return run


def conv_block(spec, params, x, layers, block):
    """Convolutions with norms and ReLU; He et al. 2016: relu(F(x) + W x) at the end, or + x."""
    given, pulls = x, []
    for i in layers:
        x, pull = normalised_conv(spec, params, x, i)
        pulls.append(pull)
        if i < layers[-1]:
            x, pull = relu(x)
            pulls.append(plain(pull))
    through, shortcut = chain(pulls), params.get(f"proj{block}")
    if spec.residual:
        x = x + (given @ shortcut["kernel"] if shortcut else given)
    x, of_relu = relu(x)

    def run(d):
        d = of_relu(d)
        dx, gradients = through(d)
        if not spec.residual:
            return dx, gradients
        if not shortcut:
            return dx + d, gradients
        kernel = np.einsum("nxyzc,nxyzf->cf", given, d)
        return dx + d @ shortcut["kernel"].T, gradients | {f"proj{block}": {"kernel": kernel}}

    return x, run


def normalised_conv(spec, params, x, i):
    kind = "bn" if spec.norm == "batch" else "norm"
    kernel, p = params[f"conv{i}"]["kernel"], params[f"{kind}{i}"]
    z, filters = convolve(x, kernel), kernel.shape[-1]
    if spec.norm == "batch":
        y, pull = batch_norm(z, p["scale"], p["bias"], spec.epsilon)
    else:
        sizes = [n for n in range(1, 9) if filters % n == 0]
        size = 1 if spec.norm == "instance" else sizes[-1]
        y, pull = norm_of_volumes(z, p["scale"], p["bias"], spec.epsilon, size)

    def run(d):
        dz, scale, bias = pull(d)
        dx, dk = convolve_gradients(x, kernel, dz)
        of_norm = {"scale": scale, "bias": bias}
        return dx, {f"conv{i}": {"kernel": dk}, f"{kind}{i}": of_norm}

    return y, run
