"""Conversion: sound played through a model, exactly and resumably, one file or an archive."""
