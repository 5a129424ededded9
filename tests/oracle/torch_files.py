"""What PyTorch itself writes, as files to read: torch_mlp.safetensors once more, as torch.save has it
now and had it before 1.6, and a network with a batch norm, with what it answers.

    pip install torch==2.15.0 numpy safetensors
    python torch_files.py

Run where torch_mlp.safetensors is.
"""
import json

import torch
from safetensors.torch import load_file, save_file

weights = load_file("torch_mlp.safetensors")
torch.save(weights, "torch_mlp.pt")
torch.save(weights, "torch_mlp_legacy.pt", _use_new_zipfile_serialization=False)

# One number that a view shows as many.
zero = torch.zeros(1, 1)
torch.save(
    {"0.weight": zero.expand(10_000_000, 64), "2.weight": zero.expand(10, 10_000_000)},
    "torch_expanded.pt",
)


class Net(torch.nn.Module):
    """The network of the Rust tests."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(2, 16)
        self.norm = torch.nn.BatchNorm1d(16)
        self.last = torch.nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.sigmoid(self.norm(self.first(x))))


torch.manual_seed(0)
net = Net()
optimizer = torch.optim.SGD(net.parameters(), 0.5)
for _ in range(20):
    optimizer.zero_grad()
    net(torch.randn(32, 2)).square().mean().backward()
    optimizer.step()
net.eval()
inputs = torch.randn(5, 2)
save_file(net.state_dict(), "torch_net.safetensors")
with open("torch_net.json", "w") as file:
    json.dump({"inputs": inputs.tolist(), "outputs": net(inputs).tolist()}, file)
