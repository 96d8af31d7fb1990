"""A low-rank trial alone on a tiny encoder, and the same encoder without our engine; what tests of the family share."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from conftest import make_data, make_trial

from trainables.backbone import Backbone
from trainables.counting import build
from trainables.group import Group
from trainables.layout import Layout
from trainables.packing import pack
from trainables.running import RunningPass, Segment, losses_of
from trainables.tasks.contract import TaskData

CPU = torch.device("cpu")
FAMILY = ("lora", "rslora", "dora", "pissa", "vera", "adalora", "dylora")


@dataclass
class Seated:
    """A trial alone on a tiny encoder, one mini-batch, and the same encoder without our engine."""

    backbone: Backbone
    group: Group
    data: TaskData
    plain: torch.nn.Module
    chosen: np.ndarray

    def run(self, drawn=None):
        """(logits [E, C], loss) of the engine, evaluation mode."""
        rows = pack([(self.data.train, self.chosen)], self.backbone.shape.heads, CPU)
        segment = Segment(self.group, 0, 1, drawn=drawn or {})
        logits = RunningPass(self.backbone, [segment], rows, None).logits()[0]
        loss = losses_of(logits, rows, segment, False).sum()
        method = self.group.layout.method
        return logits[0], loss + method.penalty(segment.everything()).sum() if method.penalised else loss

    def entries(self, buffer):
        """Tensors of a [1, P] buffer by name."""
        return {e.name: buffer[0, e.start : e.stop].view(e.shape) for e in self.group.layout.entries}

    def theirs(self, model):
        """Logits of a Hugging Face or peft model under our head, example by example."""
        head, logits = self.entries(self.group.values), []
        for i in self.chosen:
            ids = self.data.train.ids[self.data.train.offsets[i] : self.data.train.offsets[i + 1]].astype(np.int64)
            places = torch.arange(len(ids))[None] + self.backbone.family.position_offset
            out = model(input_ids=torch.from_numpy(ids)[None], position_ids=places)
            if self.backbone.shape.pooler:
                h = out.pooler_output
            else:
                h = torch.tanh(out.last_hidden_state[:, 0] @ head["head.dense"] + head["head.dense_bias"])
            logits.append(h @ head["head.out"] + head["head.out_bias"])
        return torch.cat(logits)

    def loss_of(self, logits):
        return F.cross_entropy(logits, torch.from_numpy(self.data.train.labels[self.chosen]).long())


def seat(model, method, stir=0.3, examples=6, **settings) -> Seated:
    """`stir`: how far all values are moved from their start."""
    data, backbone = make_data(), Backbone.load(model, CPU)
    layout = Layout(build(method, settings, model.shape), backbone, data.task.outputs)
    values = layout.initial(1, backbone)[None]
    values += stir * torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    kind = transformers.BertModel if model.family == "bert" else transformers.RobertaModel
    extra = {} if model.shape.pooler else {"add_pooling_layer": False}
    plain = kind.from_pretrained(model.path, attn_implementation="eager", **extra).eval()
    group = Group(layout, backbone, make_trial(method).recipe, values)
    return Seated(backbone, group, data, plain, np.arange(examples))


def rest_of(seated):
    vectors = seated.group.layout.method.rest(seated.backbone.shape)
    return {name: torch.tensor(v, dtype=torch.float32)[None, None] for name, v in vectors.items()}


def values_of(engine, trial_id):
    company, place = engine._find(trial_id)
    """The trial's tensors by name, as they are now."""
    row = company.group.values[place]
    return {e.name: row[e.start : e.stop].view(e.shape) for e in company.group.layout.entries}
