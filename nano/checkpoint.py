"""The processor's part of the checkpoint: `processor_config.json`, as the published models have it."""

import json

from transformers import Gemma4ImageProcessor, Gemma4VideoProcessor

from media import EXTRACTOR, IMAGE_TOKENS


def write_processor(folder):
    """Pictures get 70 soft tokens, sounds one for every 40 ms."""
    parts = {"feature_extractor": EXTRACTOR, "image_processor": Gemma4ImageProcessor(max_soft_tokens=IMAGE_TOKENS),
             "video_processor": Gemma4VideoProcessor()}
    config = {"audio_ms_per_token": 40, "audio_seq_length": 750, "image_seq_length": IMAGE_TOKENS, "processor_class": "Gemma4Processor"}
    config |= {name: json.loads(part.to_json_string()) for name, part in parts.items()}
    (folder / "processor_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
