"""Checkpoints as PyTorch's programs write them, and what the networks in them answer: the averages of
torch.optim.swa_utils and ema-pytorch, the layouts of timm and Lightning, other dtypes, a shared
tensor, tensors that belong to no parameter, and square matrices.

    pip install torch==2.15.0 numpy safetensors==0.8.0 ema-pytorch
    python torch_checkpoints.py

timm and Lightning are not needed: what they save are dictionaries of these keys.
"""
import json

import torch
from ema_pytorch import EMA
from safetensors.torch import save_file, save_model
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Net(torch.nn.Module):
    """The network of the Rust tests."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 16)
        self.norm = torch.nn.BatchNorm1d(16)
        self.last = torch.nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.sigmoid(self.norm(self.first(x))))


torch.manual_seed(7)
net = Net()
swa = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
ema = EMA(net, beta=0.9, update_after_step=0, update_every=1)
optimizer = torch.optim.AdamW(net.parameters(), 0.02)
for _ in range(20):
    optimizer.zero_grad()
    net(torch.randn(32, 2)).square().mean().backward()
    optimizer.step()
    swa.update_parameters(net)
    ema.update()

inputs = torch.randn(5, 2)
answers = {"inputs": inputs.tolist()}


def answer(name, model):
    answers[name] = model.eval()(inputs.to(next(model.parameters()).dtype)).tolist()


answer("live", net)
answer("swa", swa.module)
answer("ema", ema.ema_model)

torch.save(swa.state_dict(), "torch_averaged_model.pt")
save_file(swa.state_dict(), "torch_averaged_model.safetensors")
torch.save(ema.state_dict(), "ema_pytorch.pt")

# timm's CheckpointSaver.
torch.save(
    {
        "epoch": 3,
        "arch": "net",
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "state_dict_ema": swa.module.state_dict(),
        "metric": 0.5,
    },
    "timm_checkpoint.pt",
)

# Lightning's Trainer.save_checkpoint, of a LightningModule with the network as its field `model`.
torch.save(
    {
        "epoch": 3,
        "global_step": 20,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in net.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4}}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "monitor": "loss"}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
    },
    "lightning.ckpt",
)

for name, dtype in {"f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64}.items():
    other = Net()
    other.load_state_dict(net.state_dict())
    other = other.to(dtype)
    save_file(other.state_dict(), f"torch_{name}.safetensors")
    # As the same numbers answer in double precision.
    answer(name, other.double())

# Beside the network: buffers of attention, counters of a profiler, and a dtype that few have.
beside = {
    "encoder.0.rotary_emb.inv_freq": torch.rand(4),
    "embeddings.position_ids": torch.arange(6).reshape(1, 6),
    "total_ops": torch.zeros(1, dtype=torch.float64),
    "first.total_params": torch.zeros(1, dtype=torch.float64),
    "scale": torch.ones(4).to(torch.float8_e4m3fn),
}
save_file(net.state_dict() | beside, "torch_beside.safetensors")


class Tied(torch.nn.Module):
    """A head that is the embedding."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(7, 4)
        self.head = torch.nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed(x))


tied = Tied()
save_model(tied, "torch_tied.safetensors")
torch.save(tied.state_dict(), "torch_tied.pt")
answers["tied"] = tied(torch.tensor([[0, 3, 6]])).tolist()

square = torch.nn.Linear(3, 3)
save_file(square.state_dict(), "torch_square.safetensors")
save_file(square.state_dict(), "torch_square_pt.safetensors", metadata={"format": "pt"})
answers["square"] = square(torch.eye(3)).tolist()

with open("torch_checkpoints.json", "w") as file:
    json.dump(answers, file)
