"""An own encoder of a mask method, and the plain transformers model that it is held against."""

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from conftest import make_trial
from test_methods import CPU

from search_spaces.language import Recipe
from trainables.backbone import Backbone
from trainables.counting import build
from trainables.engine import Engine
from trainables.layout import Layout
from trainables.packing import pack
from trainables.running import RunningPass, Segment, losses_of

MASKS = ("fish_mask", "child_tuning_d", "lt_sft", "diff_pruning")
PART = ("top_layers", "threshold_mask", *MASKS, "child_tuning_f")


class Seat:
    """A trial in an engine of its own, and what it started from."""

    def __init__(self, model, method, data, recipe=None, lr=1e-3, **settings):
        self.engine, self.data = Engine(Backbone.load(model, CPU)), data
        self.trial = make_trial(method, lr=lr, recipe=recipe or Recipe(epochs=4, patience=9), **settings)
        pristine = Backbone.load(model, CPU)
        self.layout = Layout(build(method, settings, model.shape), pristine, data.task.outputs)
        self.start = self.layout.initial(self.trial.seed, pristine)
        self.slot = self.engine.join(self.trial, data)

    @property
    def group(self):
        return self.engine._find(self.trial.id)[0].group

    def of(self, row, name):
        e = next(e for e in self.layout.entries if e.name == name)
        return row[e.start : e.stop].view(e.shape)

    def epochs(self, number):
        for _ in range(number):
            while not self.engine.step():
                pass
        return self.group

    def loss(self, chosen):
        """The mean loss of some training examples, without dropout."""
        rows, segment = (
            pack([(self.data.train, chosen)], self.engine.backbone.shape.heads, CPU),
            Segment(self.group, 0, 1),
        )
        return losses_of(
            RunningPass(self.engine.backbone, [segment], rows, None).logits()[0], rows, segment, False
        ).sum()


def plain(model, seat, chosen, row=None, weights=None):
    """(model, losses) of examples by transformers alone, one by one; `weights` replace the encoder's, `row` holds the head."""
    row = seat.start if row is None else row
    net = transformers.BertModel.from_pretrained(model.path, attn_implementation="eager").eval()
    if weights:
        net.load_state_dict({**net.state_dict(), **weights})
    losses, split = [], seat.data.train
    for i in chosen:
        ids = torch.from_numpy(split.ids[split.offsets[i] : split.offsets[i + 1]].astype(np.int64))[None]
        logits = net(input_ids=ids).pooler_output @ seat.of(row, "head.out") + seat.of(row, "head.out_bias")
        losses.append(F.cross_entropy(logits, torch.tensor([int(split.labels[i])])))
    return net, losses
