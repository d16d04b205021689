"""Filters, feature maps, saliency and regions of trained networks."""
