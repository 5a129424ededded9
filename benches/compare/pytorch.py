"""The workloads of PyTorch, for the programs that measure beside it: `compare` and `gpu`.

It reads a request a line, such as {"work": {"kind": "lerp", "tensors": [[10, 400]]}, "repeat": 5},
makes what it asks for where that is not there yet, runs it so often, and answers with the time of
all of them: {"nanoseconds": 12345}.
{"forget": true} gives back what was made.
An answer with "error" says what cannot be run, and the next request is welcome.
"""

import json
import sys
import time
import warnings


def answer(**fields):
    print(json.dumps(fields), flush=True)


try:
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
except ImportError as error:
    answer(error=f"{error}; `pip install torch` for {sys.executable} brings it")
    sys.exit(1)

DECAY = 0.999


def tensors(counts, device="cpu"):
    """Tensors of random numbers: so many of so many numbers, for each pair."""
    return [torch.randn(size, device=device) for count, size in counts for _ in range(count)]


def device(work):
    """Where a workload runs: on the CPU, unless it names another device."""
    return work.get("device", "cpu")


def repeated(run, device="cpu"):
    """The same so many times, until the device is done."""

    def all_of(repeat):
        for _ in range(repeat):
            run()
        if device == "cuda":
            torch.cuda.synchronize()

    return all_of


def lerp(work):
    """One average of plain tensors, in one call."""
    live, average = (tensors(work["tensors"], device(work)) for _ in range(2))
    return repeated(lambda: torch._foreach_lerp_(average, live, 1 - DECAY), device(work))


def copy(work):
    """A copy that moves 12 bytes a number, one half of them each way, as an update does."""
    numbers = sum(count * size for count, size in work["tensors"])
    source, target = (torch.ones(numbers * 12 // 8, device=device(work)) for _ in range(2))
    return repeated(lambda: target.copy_(source), device(work))


def products(work):
    """The matrix products of a training step alone, forward and backward."""
    sizes, batch = work["sizes"], work["batch"]
    inputs = [torch.randn(batch, size) for size in sizes]
    weights = [torch.randn(pair) for pair in zip(sizes[1:], sizes)]

    def run():
        for layer, weight in enumerate(weights):
            torch.mm(inputs[layer], weight.t())
        for layer in reversed(range(len(weights))):
            torch.mm(inputs[layer + 1].t(), inputs[layer])
            if layer > 0:  # nobody asks for the gradient of the data
                torch.mm(inputs[layer + 1], weights[layer])

    return repeated(torch.inference_mode()(run))


def averaged_model(work):
    """One average as torch.optim.swa_utils keeps it."""
    live = nn.ParameterList(tensors(work["tensors"]))
    average = averaged(live)
    return repeated(lambda: average.update_parameters(live))


def averaged(model):
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    average.update_parameters(model)  # the first copies
    return average


def network(sizes):
    layers = [[nn.Linear(*pair), nn.Sigmoid()] for pair in zip(sizes, sizes[1:])]
    return nn.Sequential(*(part for layer in layers for part in layer))


def answers(work):
    """The answers to a batch."""
    model, inputs = network(work["sizes"]), torch.randn(work["batch"], work["sizes"][0])

    @torch.inference_mode()
    def run():
        model(inputs)

    return repeated(run)


def step(work):
    """A training step: forward, backward, optimizer, average."""
    sizes, batch = work["sizes"], work["batch"]
    model = network(sizes).to(device(work))
    inputs = torch.randn(batch, sizes[0], device=device(work))
    targets = torch.rand(batch, sizes[-1], device=device(work))
    if work["optimizer"] == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001, eps=1e-5, fused=True)
    average = averaged(model) if work["average"] else None

    def loss():
        return nn.functional.mse_loss(model(inputs), targets, reduction="sum") * (0.5 / batch)

    if work["compiled"]:
        # A fused optimizer is one kernel already.
        loss = torch.compile(loss)

    def run():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)

    return repeated(run, device(work))


KINDS = {
    "lerp": lerp,
    "averaged_model": averaged_model,
    "products": products,
    "step": step,
    "answer": answers,
    "copy": copy,
}


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(1)
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    answer(version=torch.__version__, threads=torch.get_num_threads(), cuda=cuda)
    made = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("forget"):
            made.clear()
            continue
        try:
            key = json.dumps(request["work"])
            if key not in made:
                made[key] = KINDS[request["work"]["kind"]](request["work"])
                made[key](1)
            start = time.perf_counter_ns()
            made[key](request["repeat"])
            answer(nanoseconds=time.perf_counter_ns() - start)
        except Exception as error:  # whatever it is, one line reports it
            answer(error=" ".join(str(error).split())[:300])


main()
