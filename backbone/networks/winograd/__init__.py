"""3x3 convolutions on CPUs with a quarter of the multiplications: Winograd's F(4x4, 3x3), in inference and training.

`form` has the matrices; `choice` says which convolutions gain; `compiled` and `by_torch` compute it, the second where
there is no C++ compiler or the channels do not divide; `convolution` takes one of them; `training` is what autograd
sees.
"""
