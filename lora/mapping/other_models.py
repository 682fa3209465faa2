"""Models that share module names with the supported ones, and what tells them apart.

Found by building every transformer of diffusers 0.42.1 and ComfyUI 0.30.0 without weights and
comparing the paths and shapes of their linear layers; labels are those that musubi-tuner,
ai-toolkit, sd-scripts and OneTrainer write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Twin:
    """A model some of whose modules have the names *and* the shapes of a supported one.

    Attributes:
        title: of the model, as labels name it.
        of: name of the supported architecture.
        shared: beginnings or pieces of module paths that both have; () for all.
        depth: how many blocks it has, so which block indices it can have.
    """

    title: str
    of: str
    shared: tuple[str, ...]
    depth: int


_ATTENTION = (".attn.", "norm_out.linear", "proj_out", "time_text_embed.timestep_embedder")
TWINS = (
    Twin("FLUX.1", "qwen_image", _ATTENTION, 19),
    Twin("Chroma", "qwen_image", _ATTENTION, 19),
    Twin("HunyuanVideo", "qwen_image", _ATTENTION, 20),
    Twin("FramePack", "qwen_image", _ATTENTION, 20),
    Twin("Motif-Video", "qwen_image", _ATTENTION, 20),
    Twin("LongCat-Image", "qwen_image", (*_ATTENTION, "img_in", "txt_in"), 10),
    Twin("Bria", "qwen_image", _ATTENTION, 8),
    Twin("Ovis-Image", "qwen_image", _ATTENTION, 6),
    Twin("FLUX.2", "qwen_image", _ATTENTION, 5),
    Twin("Mage Flow", "qwen_image", (), 12),
    Twin("FLUX.2", "qwen_image_21", (".attn.",), 8),
    Twin("Ming-Image", "z_image", (), 30),
    Twin("Zeta-Chroma", "z_image", (), 30),
    Twin("Z-Image L2P", "z_image", (), 30),
)

# Depths at which a file with the attention of every block, and of no other, is taken for that of
# another model if nothing says whose it is. Smaller depths are too often somebody's choice of
# blocks.
TELLING_DEPTHS = {19: "FLUX.1", 20: "HunyuanVideo"}
# Likewise, of the one that has all of Qwen-Image's modules.
MAGE_FLOW_BLOCKS, MAGE_FLOW_MODULES = 12, 14

# Pieces of module paths, flattened, that only other models have, most telling first.
TELLS = (
    ("distilled_guidance_layer", "Chroma"),
    ("_ff_linear_in", "FLUX.2"),
    ("_ff_linear_out", "FLUX.2"),
    ("_ff_context_linear_", "FLUX.2"),
    ("double_stream_modulation", "FLUX.2"),
    ("single_stream_modulation", "FLUX.2"),
    ("time_guidance_embed", "FLUX.2"),
    ("to_qkv_mlp_proj", "FLUX.2"),
    ("token_refiner", "HunyuanVideo"),
    ("context_embedder_2", "HunyuanVideo"),
    ("image_projection_", "FramePack"),
    ("clean_x_embedder", "FramePack"),
    ("caption_projection", "Bria FIBO"),
    ("_attn_to_gate", "Krea 2"),
    ("text_fusion", "Krea 2"),
    ("txtfusion", "Krea 2"),
    ("time_mod_proj", "Krea 2"),
    ("txt_in_linear_", "Krea 2"),
    ("encoder_proj", "Nucleus-Image"),
    ("img_mlp_experts", "Nucleus-Image"),
    ("img_mlp_shared_expert", "Nucleus-Image"),
    ("attn_img_qkv", "Lens"),
    ("attn_txt_qkv", "Lens"),
    ("img_mlp_w1", "Lens"),
    ("txt_mlp_w1", "Lens"),
    ("adaln_proj", "MiniMax-H3"),
    ("audio_proj_", "MiniMax-H3"),
    ("dec_net", "Zeta-Chroma"),
    ("local_decoder", "Z-Image L2P"),
    ("all_x_embedder_16", "Z-Image L2P"),
    ("all_final_layer_16", "Z-Image L2P"),
    ("cross_attention", "Bria FIBO 2"),
    ("perceiver_layers", "Bria FIBO 2"),
    ("adaln_modulation", "Ideogram 4"),
    ("_attention_o_", "Ideogram 4"),
    ("llm_cond_proj", "Ideogram 4"),
    ("attention_wq", "NewBie"),
    ("attention_wk", "NewBie"),
    ("attention_wv", "NewBie"),
    ("clip_text_pooled_proj", "NewBie"),
    ("time_caption_embed", "Lumina-Image 2"),
    ("feed_forward_linear_", "Lumina-Image 2"),
    ("time_embed_timestep_embedder", "LongCat-Image or Bria"),
    ("single_transformer_blocks", "FLUX.1 or a model like it"),
    ("single_blocks", "FLUX.1 or a model like it"),
    ("double_blocks", "FLUX.1 or a model like it"),
    ("_norm1_linear", "FLUX.1 or a model like it"),
    ("_norm1_context_linear", "FLUX.1 or a model like it"),
    ("_ff_context", "FLUX.1 or a model like it"),
    ("_ff_net_", "FLUX.1 or a model like it"),
    ("_ff_in", "MiniMax-Music3"),
    ("_ff_out", "MiniMax-Music3"),
    ("_ff_gate", "Krea 2"),
    ("_ff_up", "Krea 2"),
    ("_ff_down", "Krea 2"),
    ("context_embedder", "FLUX.1 or a model like it"),
    ("time_text_embed_text_embedder", "FLUX.1 or a model like it"),
    ("time_text_embed_guidance_embedder", "FLUX.1 or a model like it"),
    ("_attn2_", "Stable Diffusion 3"),
    ("pos_embed_proj", "Stable Diffusion 3"),
)

# The size of a module that only another model has: (module, axis of the weight, size) -> title.
SIZES = {
    ("txt_in", 1, 2560): "Mage Flow",
    ("txt_norm", 0, 2560): "Mage Flow",
    ("img_in", 1, 128): "Mage Flow",
    ("proj_out", 0, 128): "Mage Flow or FLUX.2",
    ("proj_out", 0, 48): "Bria FIBO",
}
# Likewise the width of its blocks.
WIDTHS = {
    1536: "Stable Diffusion 3 or Lens",
    2048: "HunyuanVideo 1.5 or Nucleus-Image",
    2304: "Lumina-Image 2, NewBie or Bria",
    2432: "Stable Diffusion 3.5 Large",
    3072: "Qwen-Image, FLUX.1 or HunyuanVideo",
    3584: "HunyuanImage 2.1 or Bria FIBO 2",
    3840: "Z-Image",
    4096: "Qwen-Image-2.1 or FLUX.2",
    4608: "Ideogram 4",
    5376: "MiniMax-H3",
    6144: "Krea 2 or FLUX.2",
}

# What a label begins with, in lower case and with hyphens, and the model it means; the first that
# fits. Titles of supported models are those of their architectures.
LABELS = (
    ("qwen-image-21", "Qwen-Image-2.1"),
    ("qwen-image-2-1", "Qwen-Image-2.1"),
    ("qwenimage21", "Qwen-Image-2.1"),
    ("qwen-image", "Qwen-Image"),
    ("qwenimage", "Qwen-Image"),
    ("z-image-l2p", "Z-Image L2P"),
    ("zimage-l2p", "Z-Image L2P"),
    ("z-image", "Z-Image"),
    ("zimage", "Z-Image"),
    ("flux-2", "FLUX.2"),
    ("flux2", "FLUX.2"),
    ("flux", "FLUX.1"),
    ("flex", "FLUX.1"),
    ("chroma", "Chroma"),
    ("zeta-chroma", "Zeta-Chroma"),
    ("framepack", "FramePack"),
    ("hunyuan-video", "HunyuanVideo"),
    ("hunyuanvideo", "HunyuanVideo"),
    ("hv", "HunyuanVideo"),
    ("hunyuan", "HunyuanImage"),
    ("longcat", "LongCat-Image"),
    ("ovis", "Ovis-Image"),
    ("motif", "Motif-Video"),
    ("mage", "Mage Flow"),
    ("ming", "Ming-Image"),
    ("bria", "Bria"),
    ("fibo", "Bria"),
    ("krea", "Krea 2"),
    ("nucleus", "Nucleus-Image"),
    ("lens", "Lens"),
    ("microsoft-lens", "Lens"),
    ("minimax", "MiniMax"),
    ("lumina", "Lumina-Image 2"),
    ("newbie", "NewBie"),
    ("ideogram", "Ideogram 4"),
    ("sd3", "Stable Diffusion 3"),
    ("sd-3", "Stable Diffusion 3"),
    ("stable-diffusion", "Stable Diffusion"),
    ("5-medium", "Stable Diffusion 3"),
    ("5-large", "Stable Diffusion 3"),
    ("sdxl", "Stable Diffusion XL"),
    ("sd-", "Stable Diffusion"),
    ("sd1", "Stable Diffusion"),
    ("sd2", "Stable Diffusion"),
    ("pixart", "PixArt"),
    ("auraflow", "AuraFlow"),
    ("cogview", "CogView"),
    ("cosmos", "Cosmos"),
    ("ernie", "ERNIE-Image"),
    ("glm-image", "GLM-Image"),
    ("hidream", "HiDream"),
    ("kandinsky", "Kandinsky"),
    ("kolors", "Kolors"),
    ("ltx", "LTX-Video"),
    ("mochi", "Mochi"),
    ("omnigen", "OmniGen"),
    ("anima", "Anima"),
    ("sana", "Sana"),
    ("wan", "Wan"),
)

# The module of sd-scripts and musubi-tuner that trained a file: ``networks.lora_flux``.
_NETWORK = re.compile(r"^networks\.[a-z]+_")


def model_of_label(text: str) -> str | None:
    """Return the title of the model that a label means, None for one that means none known.

    A label may be ``Qwen-Image-Edit/lora``, ``zimage:turbo``, a class name, a repository, or a
    file.
    """
    plain = text.strip().lower()
    for mark in ("\\", ":", "--"):
        plain = plain.replace(mark, "/")
    for part in reversed(plain.replace(" ", "-").split("/")):  # folders have any name
        name = _NETWORK.sub("", part).replace("_", "-").replace(".", "-")
        if name == "qwen-image-2":  # how ai-toolkit calls 2.1
            return "Qwen-Image-2.1"
        for start, title in LABELS:
            if name.startswith(start):
                return title
    return None
