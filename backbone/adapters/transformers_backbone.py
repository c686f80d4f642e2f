"""The config and the model class under which transformers knows our networks. Import it with transformers installed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BackboneOutput

from ..networks import FeatureInfo, create, find_architecture, keywords_of
from ..networks.initialise import initialise
from ..weights import Preprocessing
from .inside import in_network_order, set_outputs


class DetectionBackboneConfig(BackboneConfigMixin, PreTrainedConfig):
    """Which network, with which keywords.

    Attributes:
        architecture: name of the network.
        keywords: of `backbone.create`, plain values alone.
        preprocessing: what the loaded weights expect, as `Preprocessing.to_dict` has it, or None.
        stage_names, out_features, out_indices: as of transformers' own backbones, with our names of stages.
    """

    # Without "resnet" in it: DETR freezes every parameter of such a model that is not named as transformers' ResNet.
    model_type = "detection_backbone"

    def __init__(
        self,
        architecture: str = "resnet50",
        keywords: dict[str, Any] | None = None,
        preprocessing: dict[str, Any] | None = None,
        out_features: list[str] | None = None,
        out_indices: list[int] | None = None,
        **rest,
    ) -> None:
        super().__init__(**rest)
        self.architecture = architecture
        self.keywords = dict(keywords or {})
        self.preprocessing = preprocessing
        names = list(self.feature_info())
        self.stage_names = names
        if out_features is None and out_indices is None:
            out_features = [name for name in names if name != "stem"]
        self.set_output_features_output_indices(out_features, out_indices)

    def feature_info(self) -> dict[str, FeatureInfo]:
        """Return channels and stride of every stage that the network can have, in order of depth.

        Raises:
            ArchitectureError: a name or keyword is wrong.
        """
        last = find_architecture(self.architecture).stages[-1]
        with torch.device("meta"):
            return create(self.architecture, **self.keywords, out_features=(last,)).feature_info

    @property
    def channels(self) -> list[int]:
        """Channels of each of `out_features`; RT-DETR's config wants them as `encoder_in_channels`."""
        info = self.feature_info()
        return [info[stage].channels for stage in self.out_features]

    @property
    def strides(self) -> list[int]:
        """Stride of each of `out_features`; RT-DETR's config wants them as `feat_strides`."""
        info = self.feature_info()
        return [info[stage].stride for stage in self.out_features]


class DetectionBackbone(BackboneMixin, PreTrainedModel):
    """A network under transformers' backbone interface; `network` is ours."""

    config_class = DetectionBackboneConfig
    main_input_name = "pixel_values"
    has_attentions = False

    def __init__(self, config: DetectionBackboneConfig) -> None:
        super().__init__(config)
        info = config.feature_info()
        self.num_features = [info[stage].channels for stage in config.stage_names]
        self.network = create(config.architecture, **config.keywords, out_features=tuple(config.out_features))
        if config.preprocessing is not None:
            self.network.preprocessing = Preprocessing.from_dict(config.preprocessing)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one layer as the networks do; transformers calls it for what a checkpoint lacks."""
        if isinstance(module, nn.Conv2d):
            initialise(module)
        elif isinstance(module, nn.GroupNorm) or hasattr(module, "running_mean"):
            for name, fill in (("weight", nn.init.ones_), ("bias", nn.init.zeros_)):
                fill(getattr(module, name))
            if hasattr(module, "running_mean"):
                nn.init.zeros_(module.running_mean)
                nn.init.ones_(module.running_var)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Run over every layer, this backbone last, after building and after `from_pretrained`."""
        super()._initialize_weights(module, is_custom_code)
        if module is self:
            # from_pretrained makes parameters anew, and all of them ask for gradients then.
            self.network.freeze(self.network.freeze_at)

    def record_weights(self) -> None:
        """Write what loaded weights have set on the network into the config, which `save_pretrained` writes."""
        preprocessing = self.network.preprocessing
        self.config.preprocessing = None if preprocessing is None else preprocessing.to_dict()
        if "ceil_pool" in keywords_of(self.config.architecture):
            self.config.keywords["ceil_pool"] = self.network.ceil_pool

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None, **_: Any
    ) -> BackboneOutput | tuple:
        """Compute the stages in `out_features`.

        Args:
            pixel_values: (N, 3, H, W), RGB, normalised with `backbone.adapters.image_statistics`.
            output_hidden_states: return every stage that is built, too.

        Returns:
            `feature_maps`: (N, channels, H / stride, W / stride) of each stage, in order of depth.
        """
        wanted = tuple(self.out_features)
        every = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        stages = tuple(self.network.stage_names) if every else wanted
        if self.network.out_features != stages:
            set_outputs(self.network, stages)
        features = self.network(in_network_order(pixel_values, self.network))
        output = BackboneOutput(
            feature_maps=tuple(features[stage] for stage in wanted),
            hidden_states=tuple(features.values()) if every else None,
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()
