"""Reading and resizing images with OpenCV. Imported where images are read, not by `import backbone`."""

from .bands import picture_of, rgb_picture
from .find import find_images, is_image_name, is_video_name, list_folders, list_images, walk_files
from .headers import has_image_magic, read_header, with_end
from .letters import lettering, put_letters
from .read import decode_image, read_image
from .resize import montage, resize_image

__all__ = [
    "decode_image",
    "find_images",
    "has_image_magic",
    "is_image_name",
    "is_video_name",
    "lettering",
    "list_folders",
    "list_images",
    "montage",
    "picture_of",
    "put_letters",
    "read_header",
    "read_image",
    "resize_image",
    "rgb_picture",
    "walk_files",
    "with_end",
]
