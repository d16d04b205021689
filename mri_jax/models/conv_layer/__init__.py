"""A conv layer with its norm, ReLU and max pooling: one function, its gradients, its forms.

`layer.conv_layer` is the door: the function and its written-out backward pass. What is heavy in it
(the convolution, the moments, the selection of maxima, and their transposes) has several exact
forms, chosen in `forms`. `reference` is the plain form that all are held to.
"""

from mri_jax.models.conv_layer.arguments import Features, Parameters, Setting
from mri_jax.models.conv_layer.layer import conv_layer
from mri_jax.models.conv_layer.moments import Moments
from mri_jax.models.conv_layer.pooling import joined
from mri_jax.models.conv_layer.reference import max_pool

__all__ = ["Features", "Moments", "Parameters", "Setting", "conv_layer", "joined", "max_pool"]
