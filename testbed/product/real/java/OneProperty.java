package kytx.bed;

import java.util.Properties;
import org.apache.kylin.common.KylinConfig;

/** Prints one property of a home as Kylin itself reads it. The product's own program for that is on no public repository. */
public final class OneProperty {
    public static void main(String[] args) {
        Properties all = KylinConfig.getInstanceFromEnv().exportToProperties();
        System.out.println(all.getProperty(args[0], "").trim());
    }
}
