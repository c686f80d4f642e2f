"""The 4-step alternating training of Faster R-CNN (Ren et al., 2015, Sec. 3.2), which the ResNet paper follows."""
