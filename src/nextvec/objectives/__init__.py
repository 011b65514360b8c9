"""Objectives: tensors to a Term. They never see a model."""
