"""Numbers of TRL's BEMACallback, which `tests/it/bema.rs` compares with the rule `bema`.

    pip install torch==2.15.0 trl==1.16.0 numpy
    python trl_bema.py --out .

The weights after each step are fractions that Python and Rust compute with the same bits, so the
file holds the callback's numbers alone: after each of its updates, the step and its output.
"""
import argparse, json, pathlib, types

import torch
import trl

torch.set_default_dtype(torch.float64)
SIZE = 3


def weights(step):
    """What the optimizer left after `step` steps; `weights(0)` is the start."""
    return [(step * (7 + place) % 101) / 101 + step / 512 - place for place in range(SIZE)]


class Weights(torch.nn.Module):
    """A model with one parameter, and a config, from which the callback makes its copy."""

    def __init__(self, config=None):
        super().__init__()
        self.config = config
        self.w = torch.nn.Parameter(torch.tensor(weights(0)))


def outputs(steps, settings):
    model, callback = Weights(), trl.BEMACallback(**settings)
    callback.on_train_begin(None, None, None, model)
    found = []
    for step in range(1, steps + 1):
        with torch.no_grad():
            model.w.copy_(torch.tensor(weights(step)))
        callback.on_step_end(None, types.SimpleNamespace(global_step=step), None, model)
        since = step - callback.update_after
        if since > 0 and since % callback.update_freq == 0:
            found.append([step, callback.running_model.w.tolist()])
    return found


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--out", default=".")
    args = args.parse_args()
    cases = [
        (4000, {}),  # its defaults
        (4000, {"update_after": 150}),
        (40, {"update_freq": 1}),
        (40, {"update_freq": 1, "update_after": 7}),
        (60, {"update_freq": 4, "lag": 3, "multiplier": 0.5, "ema_power": 0.7, "bias_power": 0.4}),
        (60, {"update_freq": 5, "update_after": 12, "lag": 1, "multiplier": 2.0}),
        (60, {"update_freq": 6, "ema_power": 0.0}),  # no average: live, moved on
        (60, {"update_freq": 6, "bias_power": 0.0}),  # all of the way from the start
    ]
    keys = ["update_freq", "ema_power", "bias_power", "lag", "update_after", "multiplier"]
    made = []
    for steps, given in cases:
        callback = trl.BEMACallback(**given)
        settings = {key: getattr(callback, key) for key in keys}
        made.append({"settings": settings, "outputs": outputs(steps, given)})
    text = json.dumps({"trl": trl.__version__, "cases": made})
    (pathlib.Path(args.out) / "trl_bema.json").write_text(text)


if __name__ == "__main__":
    main()
