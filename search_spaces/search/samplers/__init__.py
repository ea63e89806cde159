"""One module per sampler; ``search_spaces.study.registry.SAMPLERS`` names them."""
