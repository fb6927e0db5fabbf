#include "gtk.h"

#include <X11/Xlib.h>
#include <gtk/gtk.h>
#include <gtk/gtkx.h>
#include <string.h>

#include "_cgo_export.h"

// GLib's warnings go to the log of the program instead of its standard error. Chatter below them is nobody's concern.
static GLogWriterOutput write_log(GLogLevelFlags level, const GLogField *fields, gsize count, gpointer unused) {
	const char *domain = "", *message = "";
	if (level & (G_LOG_LEVEL_INFO | G_LOG_LEVEL_DEBUG))
		return G_LOG_WRITER_HANDLED;
	for (gsize i = 0; i < count; i++) {
		if (fields[i].length >= 0) // not a text that ends with a NUL
			continue;
		if (strcmp(fields[i].key, "GLIB_DOMAIN") == 0)
			domain = fields[i].value;
		else if (strcmp(fields[i].key, "MESSAGE") == 0)
			message = fields[i].value;
	}
	glibSaid((char *)domain, (char *)message);
	return G_LOG_WRITER_HANDLED;
}

// Xlib ends the program when this returns.
static int lose_display(Display *display) {
	displayLost();
	return 0;
}

// A panel fixes one side of the icon's place; the other follows the icon, and so says nothing. GTK's own rule: the
// height, unless the panel said that it is vertical.
static void tell_slot(GtkWidget *plug, int width, int height) {
	GtkOrientation orientation = GTK_ORIENTATION_HORIZONTAL;
	if (g_object_class_find_property(G_OBJECT_GET_CLASS(plug), "orientation"))
		g_object_get(plug, "orientation", &orientation, NULL);
	slotChanged(gtk_plug_get_embedded(GTK_PLUG(plug)), orientation == GTK_ORIENTATION_HORIZONTAL ? height : width);
}

static void embedded_changed(GtkWidget *plug, GParamSpec *property, gpointer unused) {
	tell_slot(plug, gtk_widget_get_allocated_width(plug), gtk_widget_get_allocated_height(plug));
}

// The only plug of this program is the icon in the panel. Nobody hands it out, so it is met when it gets its size.
static gboolean size_allocated(GSignalInvocationHint *hint, guint count, const GValue *values, gpointer unused) {
	GObject *widget = g_value_get_object(&values[0]);
	const GdkRectangle *slot = g_value_get_boxed(&values[1]);
	if (!GTK_IS_PLUG(widget))
		return TRUE;
	if (!g_object_get_data(widget, "netvm-tray")) {
		g_object_set_data(widget, "netvm-tray", GINT_TO_POINTER(TRUE));
		g_signal_connect(widget, "notify::embedded", G_CALLBACK(embedded_changed), NULL);
	}
	tell_slot(GTK_WIDGET(widget), slot->width, slot->height);
	return TRUE;
}

// A submenu is attached to its row, and the tray's menu to nothing.
static gboolean is_tray_menu(gpointer widget) {
	return GTK_IS_MENU(widget) && !gtk_menu_get_attach_widget(GTK_MENU(widget));
}

static gboolean menu_mapped(GSignalInvocationHint *hint, guint count, const GValue *values, gpointer mapped) {
	if (is_tray_menu(g_value_get_object(&values[0])))
		menuShown(GPOINTER_TO_INT(mapped));
	return TRUE;
}

static void hook(const char *signal, GSignalEmissionHook called, gpointer data) {
	g_signal_add_emission_hook(g_signal_lookup(signal, GTK_TYPE_WIDGET), 0, called, data, NULL);
}

gboolean tray_start(void) {
	g_log_set_writer_func(write_log, NULL, NULL);
	if (!gtk_init_check(0, NULL))
		return FALSE;
	XSetIOErrorHandler(lose_display);
	g_type_class_ref(GTK_TYPE_WIDGET); // its signals exist once its class does
	hook("size-allocate", size_allocated, NULL);
	hook("map", menu_mapped, GINT_TO_POINTER(TRUE));
	hook("unmap", menu_mapped, GINT_TO_POINTER(FALSE));
	return TRUE;
}

static gboolean free_now(gpointer unused) {
	mainThreadFree();
	return G_SOURCE_REMOVE;
}

void tray_soon(void) { g_idle_add(free_now, NULL); }

// Each menu of GTK stands in a window of its own, and GTK lists the windows.
static GtkWidget *find_tray_menu(void) {
	GtkWidget *menu = NULL;
	GList *windows = gtk_window_list_toplevels();
	for (GList *w = windows; w && !menu; w = w->next) {
		GtkWidget *child = gtk_bin_get_child(GTK_BIN(w->data));
		if (child && is_tray_menu(child))
			menu = child;
	}
	g_list_free(windows);
	return menu;
}

void tray_hide_row(const int *path, int depth) {
	GtkWidget *menu = find_tray_menu(), *row = NULL;
	for (int i = 0; i < depth && menu; i++) {
		GList *rows = gtk_container_get_children(GTK_CONTAINER(menu));
		row = g_list_nth_data(rows, path[i]);
		g_list_free(rows);
		menu = row ? gtk_menu_item_get_submenu(GTK_MENU_ITEM(row)) : NULL;
	}
	if (row)
		gtk_widget_hide(row);
}

void tray_copy(const char *text, int length) {
	GtkClipboard *clipboard = gtk_clipboard_get(GDK_SELECTION_CLIPBOARD);
	gtk_clipboard_set_text(clipboard, text, length);
	gtk_clipboard_store(clipboard); // with a clipboard manager, it outlives this program
}
