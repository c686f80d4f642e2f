"""Reading and resizing images with OpenCV. Imported where images are read, not by `import backbone`."""

from .headers import has_image_magic, read_header
from .montage import montage
from .read import decode_image, read_image
from .resize import resize_image

__all__ = ["decode_image", "has_image_magic", "montage", "read_header", "read_image", "resize_image"]
