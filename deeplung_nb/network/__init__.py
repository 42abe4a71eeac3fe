"""The network, its loss and its pretrained weights."""
