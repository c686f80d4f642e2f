"""Detection on images: the test's transform, its methods and ensembles, whole sets, files and their pictures."""
