// What the tray needs of GTK and the systray library does not give. GTK belongs to one thread, the main one.
#pragma once

#include <glib.h>

// Connects to the display and begins to tell what happens, through the functions that gtk.go exports. FALSE = there is
// no display. To be called once, on the main thread, before any other function of GTK.
gboolean tray_start(void);

// Has mainThreadFree called on the main thread, after what was asked of GTK before. From any thread.
void tray_soon(void);

// Hides a row of the menu: path holds the row's place, from the top level down. On the main thread.
void tray_hide_row(const int *path, int depth);

// Gives the clipboard a text of so many bytes. On the main thread.
void tray_copy(const char *text, int length);
