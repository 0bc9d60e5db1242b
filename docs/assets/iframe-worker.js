// Chromium starts no Worker from file://. There, an iframe runs the script of the search in a Worker's place.
