"""The judge: a ResNet that tells paintings from photographs, and the scores of generated images."""
