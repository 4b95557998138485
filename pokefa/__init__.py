"""The shared core of PokeFA: the ledger, the stage runner, the engine, images, model files and OpenAI calls.

The core knows how a decision is recorded, never what is decided: thresholds, prompts, species lists and models
belong to the stages.
"""

__version__ = "0.1.0"
